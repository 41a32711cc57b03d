package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
)

// TestWhyRefused: an operator who was told nothing finds why somebody cannot
// connect: in one line of the log, in the events, and in what the client prints.
func TestWhyRefused(t *testing.T) {
	s := newSite(t)
	gw := s.run(s.Gateway, "--config", s.write("gateway.yaml", gatewayConfig))
	conf := strings.ReplaceAll(fmt.Sprintf(clientConfig, s.dir), "anna.psk", "other.psk")
	s.write("other.psk", "another-secret-of-more-than-20-bytes\n")
	client := s.run(s.Clients[0], "--instance", "anna", "--config", s.write("anna.yaml", conf))
	s.want(s.Clients[0], exitError, []string{"AUTHENTICATION_FAILED"}, "--instance", "anna", "initiate", "office")
	for d, want := range map[*daemon][]string{
		gw: {`claims to be \"anna@example.org\" for connection roadwarriors: wrong secret; compare the two keys; ours is `,
			filepath.Join(s.dir, "anna.psk") + `, of 35 bytes`},
		client: {`198.51.100.1:4500 refuses connection office: AUTHENTICATION_FAILED; we came as \"anna@example.org\" and expect \"vpn.example.org\"; its log has the reason`},
	} {
		s.await("it is in the log", func() error {
			for _, text := range want {
				if strings.Count(d.log.String(), text) != 1 {
					return errors.New(d.log.String())
				}
			}
			return nil
		})
		if n := strings.Count(d.log.String(), "level=WARN"); n != 1 {
			t.Errorf("%d warnings: %s", n, &d.log)
		}
	}
	s.want(s.Gateway, 0, []string{"refused    since the start: wrong secret: 1"}, "status")
	s.stop(gw, client)
	s.want(s.Gateway, 0, nil, "detach", "--all")
	s.want(s.Clients[0], 0, nil, "--instance", "anna", "detach", "--all")
}
