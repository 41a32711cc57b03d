package gateway

import (
	"context"
	"log/slog"
	"sync"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"github.com/ikepulse/ikepulse/loader"
	"github.com/ikepulse/ikepulse/test/require"
)

// pair makes a veth pair, of which the first is the test's.
func pair(t *testing.T, name string) netlink.Link {
	t.Helper()
	attrs := netlink.NewLinkAttrs()
	attrs.Name = name
	link := &netlink.Veth{LinkAttrs: attrs, PeerName: name + "-peer"}
	if err := netlink.LinkAdd(link); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = netlink.LinkDel(link) }) // the test may have done it
	return link
}

// TestKeeperHearsOfLinks: an interface that comes back is attached at once, by
// the event of its link alone.
func TestKeeperHearsOfLinks(t *testing.T) {
	require.Have(t, "root", "netns", "bpf")
	if !isolated {
		t.Fatal("root, but no namespaces to test in")
	}
	xdp, err := loader.Ensure(loader.Options{Instance: "keeper", NoPin: true, Capacity: 10})
	if err != nil {
		t.Fatal(err)
	}
	defer xdp.Close()
	dev := pair(t, "k0")
	k := newKeeper(xdp, []string{"k0"}, slog.New(slog.DiscardHandler))
	k.every = time.Hour // never
	k.pass()
	ctx, end := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { k.follow(ctx) }) // ends with ctx
	defer running.Wait()
	defer end()
	for range 5 {
		before := only(t, xdp)
		if before.Gone {
			t.Fatalf("%+v", before)
		}
		if err := netlink.LinkDel(dev); err != nil {
			t.Fatal(err)
		}
		dev = pair(t, "k0")
		for limit := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
			if a := only(t, xdp); !a.Gone && a.LinkID != before.LinkID {
				break
			}
			if time.Now().After(limit) {
				t.Fatalf("not attached again: %+v", only(t, xdp))
			}
		}
	}
}

func only(t *testing.T, i *loader.Instance) loader.Attachment {
	t.Helper()
	all, err := i.Attachments()
	if err != nil || len(all) != 1 {
		t.Fatalf("%+v, %v", all, err)
	}
	return all[0]
}
