package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"
)

// config says what is measured, and how much of it.
type config struct {
	few, many             int // clients
	flood                 int // spoofed messages a second
	quick                 bool
	only                  []string      // arms; none: all
	hold                  time.Duration // the tunnels stay up for so long
	alone                 time.Duration // the flood is alone for so long
	timeout               time.Duration // of a handshake; 0: the clients' own
	bareTime              time.Duration // of one round of the cryptography
	clientCPU, gatewayCPU int
	built                 string // the folder of what is tried
	progress              io.Writer
}

// arm is one surge.
type arm struct {
	name    string
	clients int
	one     bool    // all of one address and port
	loss    float64 // of packets, each way
	flood   int     // spoofed first messages a second beside it
}

const (
	// lost is the part of the packets that a bad line loses, each way.
	lost = 0.3
	// quickFew and quickMany are the clients of a run that is over soon.
	quickFew  = 1_000
	quickMany = 4_000
)

// arms are those of a configuration.
func (c *config) arms() (out []arm) {
	few, many := c.few, c.many
	if c.quick {
		few, many = quickFew, quickMany
	}
	for _, a := range []arm{
		{name: "few", clients: few},
		{name: "many", clients: many},
		{name: "one", clients: many, one: true},
		{name: "flood", clients: few, flood: c.flood},
		{name: "loss", clients: few, loss: lost},
	} {
		if len(c.only) == 0 || slices.Contains(c.only, a.name) {
			out = append(out, a)
		}
	}
	return out
}

func armNames() (names []string) {
	for _, a := range new(config).arms() {
		names = append(names, a.name)
	}
	return names
}

// choose reads a list of arms.
func (c *config) choose(list string) error {
	c.only = strings.Split(list, ",")
	for _, name := range c.only {
		if !slices.Contains(armNames(), name) {
			return fmt.Errorf("no arm %q", name)
		}
	}
	return nil
}

// plain is an arm in which nothing but the gateway's own work keeps clients
// waiting.
func (a arm) plain() bool { return !a.one && a.loss == 0 && a.flood == 0 }

func (a arm) String() string {
	text := fmt.Sprintf("%d clients, an address each", a.clients)
	if a.one {
		text = fmt.Sprintf("%d clients of one address and port", a.clients)
	}
	switch {
	case a.loss > 0:
		text += fmt.Sprintf(", %.0f %% of the packets lost each way", 100*a.loss)
	case a.flood > 0:
		text += fmt.Sprintf(", beside %d spoofed first messages a second", a.flood)
	}
	return text
}
