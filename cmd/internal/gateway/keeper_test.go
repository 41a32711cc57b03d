package gateway

import (
	"context"
	"errors"
	"log/slog"
	"reflect"
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
	k.pass(true)
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

// TestSurvey: the view is whole when nothing that is wanted is missing.
func TestSurvey(t *testing.T) {
	on := func(name string, id uint32) loader.Attachment { return loader.Attachment{Interface: name, LinkID: id} }
	gone := on("k1", 0)
	gone.Gone = true
	for what, c := range map[string]struct {
		on      []loader.Attachment
		refused map[string]error
		err     error
		want    view
	}{
		"all is there":            {[]loader.Attachment{on("k0", 1), on("k1", 2)}, nil, nil, view{[]uint32{1, 2}, true}},
		"and somebody's":          {[]loader.Attachment{on("k0", 1), on("k1", 2), on("k2", 3)}, nil, nil, view{[]uint32{1, 2, 3}, true}},
		"one is detached":         {[]loader.Attachment{on("k0", 1)}, nil, nil, view{[]uint32{1}, false}},
		"one is gone":             {[]loader.Attachment{on("k0", 1), gone}, nil, nil, view{[]uint32{1, 0}, false}},
		"somebody's is gone":      {[]loader.Attachment{on("k0", 1), on("k1", 2), {Interface: "k2", Gone: true}}, nil, nil, view{[]uint32{1, 2, 0}, false}},
		"one is refused":          {[]loader.Attachment{on("k0", 1), on("k1", 2)}, map[string]error{"k2": errors.New("no")}, nil, view{[]uint32{1, 2}, false}},
		"the pins cannot be read": {nil, nil, errors.New("no"), view{nil, false}},
	} {
		k := newKeeper(nil, []string{"k0", "k1"}, slog.New(slog.DiscardHandler))
		k.survey(c.on, c.refused, c.err)
		if got := k.view(); !reflect.DeepEqual(got, c.want) {
			t.Errorf("%s: %+v, want %+v", what, got, c.want)
		}
	}
}
