package test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// TestStrongSwanDNS: a strongSwan that asks for DNS servers uses those of the
// pool for as long as it has its tunnel.
func TestStrongSwanDNS(t *testing.T) {
	t.Parallel()
	if _, err := os.Stat("/sbin/resolvconf"); !errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("strongSwan would change this host's DNS: /sbin/resolvconf: %v", err)
	}
	s := newSite(t, 1, gatewayConfig{names: ", dns: [10.99.0.53, 10.99.0.54], domains: [corp.example.org]"})
	file := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(file, []byte("nameserver 127.0.0.1\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	servers := func() (out []string) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "nameserver" {
				out = append(out, f[1])
			}
		}
		return out
	}
	client := s.client(0, "load = random nonce openssl pem pkcs1 pkcs8 x509 pubkey gmp curve25519 hmac kdf aes sha1 sha2 gcm chapoly drbg "+
		"kernel-libipsec kernel-netlink socket-default vici updown resolve\nplugins {\nresolve {\nfile = "+file+"\n}\n}")
	initiate(t, client, "net")
	got := strings.Join(servers(), " ")
	for _, want := range []string{"10.99.0.53", "10.99.0.54", "127.0.0.1"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("the client's servers are %s", got)
		}
	}
	sa, _ := only(t, client)
	ping(t, s.net.Clients[0], vipOf(t, sa.LocalVIPs), inner, 3, 10*time.Millisecond)
	if err := client.Terminate("home"); err != nil {
		t.Fatal(err)
	}
	await(t, "the client has its own server alone", func() bool { return strings.Join(servers(), " ") == "127.0.0.1" })
}
