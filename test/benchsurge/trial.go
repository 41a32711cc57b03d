package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/ikepulse/ikepulse/test/lab"
)

// trial is one arm while it is measured.
type trial struct {
	config
	arm
	site   *site
	dir    string
	g      *gateway
	flood  *flood
	result result
}

// measure runs an arm with a network and a gateway of its own.
func (c config) measure(a arm) (r result, err error) {
	dir, err := os.MkdirTemp("", a.name)
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(dir)) }()
	l := lab.New()
	defer func() { err = errors.Join(err, l.Close()) }()
	t := &trial{config: c, arm: a, dir: dir, result: result{Arm: a.name, What: a.String(), Clients: a.clients}}
	if t.site, err = newSite(l, a); err != nil {
		return r, err
	}
	if t.g, err = startGateway(c, t.site, dir); err != nil {
		return r, err
	}
	err = errors.Join(t.run(), t.g.stop())
	if err != nil {
		err = fmt.Errorf("%s: %w", a.name, err)
	}
	return t.result, err
}

func (t *trial) run() error {
	before, err := memoryOf(t.g.PID())
	if err != nil {
		return err
	}
	t.result.Memory.Before = before.now
	defer func() {
		if t.flood != nil {
			_, _ = t.flood.stop() // what has failed is told already
		}
	}()
	if t.arm.flood > 0 {
		if err := t.inundate(); err != nil {
			return err
		}
	}
	if err := t.surge(); err != nil {
		return err
	}
	if t.flood != nil {
		if err := t.dry(); err != nil {
			return err
		}
	}
	return t.aftermath()
}

// inundate begins the flood, and looks at what it costs while it is alone.
func (t *trial) inundate() (err error) {
	if t.flood, err = startFlood(t.site.flood, t.arm.flood); err != nil {
		return err
	}
	cpu, err := cpuOf(t.g.PID())
	if err != nil {
		return err
	}
	sent := t.flood.sent.Load()
	time.Sleep(t.alone)
	m, err := memoryOf(t.g.PID())
	if err != nil {
		return err
	}
	t.result.Flood = &flooded{MemoryAlone: m.now}
	after, err := cpuOf(t.g.PID())
	if n := t.flood.sent.Load() - sent; n > 0 {
		t.result.Flood.CPUPerMessageUS = float64((after - cpu).Nanoseconds()) / 1000 / float64(n)
	}
	return err
}

// dry ends the flood and looks at what has come back.
func (t *trial) dry() (err error) {
	f := t.flood
	t.flood = nil
	if t.result.Flood.PerSecond, err = f.stop(); err != nil {
		return err
	}
	time.Sleep(settle)
	t.result.Flood.exchanged, err = f.exchanged()
	return err
}

// surge lets the clients call, and reads what there is to read meanwhile.
func (t *trial) surge() error {
	cl, err := t.startClients(t.site, t.arm, t.dir)
	if err != nil {
		return err
	}
	line := follow(t.config, t.site, t.g, cl)
	looked := t.look(cl)
	if looked != nil {
		_ = cl.Kill() // nobody is there who could answer them
	}
	called, err := cl.ended()
	line.reader.Wait()
	if err = errors.Join(err, looked, line.err); err != nil {
		return err
	}
	t.result.Callers = called
	from, latest, ok := line.began()
	if !ok {
		return errors.New("the clients have sent nothing")
	}
	// Rather some idle time too much than some work too little.
	to := latest.Add(time.Duration(called.WallMS) * time.Millisecond)
	spent := line.at(to).gateway - line.at(from).gateway
	t.result.CPUSeconds = spent.Seconds()
	if called.Up > 0 {
		t.result.CPUPerHandshakeUS = float64(spent.Nanoseconds()) / 1000 / float64(called.Up)
	}
	t.result.Waits = line.waits(from, to)
	return nil
}

const (
	// lookPause is how often the gateway is asked: seldom, because it has to
	// answer, and often enough for its lag, which is that of half a minute.
	lookPause = 2 * time.Second
	// settle is how long what is under way takes.
	settle = time.Second
)

// look asks the gateway how it is until the clients have ended.
func (t *trial) look(cl *clients) error {
	for {
		select {
		case <-cl.Done():
			return nil
		case <-time.After(lookPause):
			if err := t.note(); err != nil {
				return err
			}
		}
	}
}

// note takes note of the gateway's status.
func (t *trial) note() error {
	st, err := t.g.status()
	if err != nil {
		return t.g.failure(err)
	}
	r := &t.result
	r.HalfOpenMost = max(r.HalfOpenMost, st.IKE.Handshakes.HalfOpen)
	r.UpMost = max(r.UpMost, st.IKE.Up)
	for i := range st.IKE.LagP99US {
		r.LagP99US, r.LagMaxUS = max(r.LagP99US, st.IKE.LagP99US[i]), max(r.LagMaxUS, st.IKE.LagMaxUS[i])
	}
	r.Counters = st.IKE.Counters
	return nil
}

// aftermath is what is left when the clients are gone.
func (t *trial) aftermath() error {
	time.Sleep(settle)
	if err := t.note(); err != nil {
		return err
	}
	m, err := memoryOf(t.g.PID())
	if err != nil {
		return err
	}
	t.result.Memory.Peak, t.result.Memory.After = m.peak, m.now
	if t.result.KernelPart, err = kernelPart(t.g.PID()); err != nil {
		return err
	}
	t.result.LostInSockets, err = lostInSockets(t.g.PID())
	return err
}
