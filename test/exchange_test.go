package test

import (
	"strings"
	"testing"
	"time"
)

// TestStrongSwanRekeys: what is not built yet is refused in the protocol's
// words. strongSwan reads them, deletes its IKE SA and comes again; it has its
// address again, and nothing of the old tunnel stays.
func TestStrongSwanRekeys(t *testing.T) {
	for kind, name := range map[string]string{"--child": "net", "--ike": "home"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newSite(t, 1, gatewayConfig{})
			all := s.uplink(nil)
			client := s.client(0, "")
			initiate(t, client, "net")
			sa, _ := only(t, client)
			before := s.gw.peer()
			if _, err := client.Swanctl("--rekey", kind, name); err != nil {
				t.Fatal(err)
			}
			var now peer
			await(t, "another tunnel, and only that", func() bool {
				peers := s.gw.peers()
				if len(peers) != 1 || peers[0].Child == nil || peers[0].SPI == before.SPI {
					return false
				}
				now = peers[0]
				sas, err := client.SAs()
				return err == nil && len(sas) == 1 && len(sas[0].Children) == 1
			})
			if !strings.Contains(client.Log(), "parsed CREATE_CHILD_SA response 2 [ N(NO_ADD_SAS) ]") {
				t.Error("strongSwan has read no NO_ADDITIONAL_SAS")
			}
			if n := len(messages(all, false, createChild, false)); n != 1 {
				t.Errorf("strongSwan asked %d times", n)
			}
			again, _ := only(t, client)
			vip := vipOf(t, again.LocalVIPs)
			if vip != vipOf(t, sa.LocalVIPs) {
				t.Errorf("its address was %v, and is %v", sa.LocalVIPs, vip)
			}
			ping(t, s.net.Clients[0], vip, inner, 3, 10*time.Millisecond)
			checkOne(s, now)
		})
	}
}

// TestStrongSwanNotifies: what strongSwan offers unasked (MOBIKE, fragments and
// more) gets no answer, and it does without.
func TestStrongSwanNotifies(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	client := s.client(0, "")
	initiate(t, client, "net")
	log := client.Log()
	for _, offer := range []string{"N(FRAG_SUP)", "N(HASH_ALG)", "N(MOBIKE_SUP)", "N(EAP_ONLY)", "N(MSG_ID_SYN_SUP)"} {
		if !strings.Contains(log, offer) {
			t.Errorf("strongSwan does not offer %s any more", offer)
		}
	}
	for line := range strings.Lines(log) {
		if strings.Contains(line, "[ENC] parsed") && !strings.HasSuffix(line, " response 0 [ SA KE No N(NATD_S_IP) N(NATD_D_IP) ]\n") &&
			!strings.HasSuffix(line, " response 1 [ IDr AUTH CPRP(ADDR) SA TSi TSr ]\n") {
			t.Errorf("strongSwan reads %s", line)
		}
	}
}

// TestStrongSwanDeletes: strongSwan deletes its tunnel, or its child alone, and
// nothing of it stays.
func TestStrongSwanDeletes(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	routes := routing(t, s.net.Gateway)
	client := s.client(0, "")
	initiate(t, client, "net")
	if _, err := client.Swanctl("--terminate", "--child", "net"); err != nil {
		t.Fatal(err)
	}
	if all := s.gw.peers(); len(all) != 1 || all[0].Child != nil {
		t.Errorf("without its child: %+v", all)
	}
	if spis, tuples := tracked(t, s.gw.maps()); len(spis)+len(tuples) != 0 {
		t.Errorf("left in the maps: SPIs %x, tuples %+v", spis, tuples)
	}
	if err := client.Terminate("home"); err != nil {
		t.Fatal(err)
	}
	s.cleared(routes)
	if told := s.gw.logged("deleted by peer"); len(told) != 1 {
		t.Errorf("our log: %+v", told)
	}
}

// TestStrongSwanDeleted: what we delete is gone at strongSwan.
func TestStrongSwanDeleted(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	routes := routing(t, s.net.Gateway)
	client := s.client(0, "")
	initiate(t, client, "net")
	s.gw.must("terminate", "anna@example.org")
	s.cleared(routes)
	if sas, err := client.SAs(); len(sas) != 0 || err != nil {
		t.Errorf("strongSwan has %+v, %v", sas, err)
	}
	initiate(t, client, "net")
	s.gw.stop()
	if sas, err := client.SAs(); len(sas) != 0 || err != nil {
		t.Errorf("after our end strongSwan has %+v, %v", sas, err)
	}
}

// TestStrongSwanIsDeaf: our end does not wait for long for the answers of those
// who give none.
func TestStrongSwanIsDeaf(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{})
	all := s.uplink(nil)
	client := s.client(0, "")
	initiate(t, client, "net")
	set := s.gw.maps()
	kill(client)
	s.gw.stop()
	if ids, _ := probes(t, all); len(ids) != 1 {
		t.Errorf("goodbyes: the requests %d went out", ids)
	}
	if spis, tuples := tracked(t, set); len(spis)+len(tuples) != 0 {
		t.Errorf("left in the maps: SPIs %x, tuples %+v", spis, tuples)
	}
}

// TestStrongSwanChildless: an IKE SA without a child lives and is probed. We do
// not offer it (RFC 6023 §3): a peer that begins so would ask for its child by
// CREATE_CHILD_SA.
func TestStrongSwanChildless(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{dpd: shortDPD})
	routes := routing(t, s.net.Gateway)
	all := s.uplink(nil)
	client := s.client(0, "", peerConfig{vips: "none", more: "childless = force"})
	if _, err := client.Swanctl("--initiate", "--ike", "home"); err != nil {
		t.Fatal(err)
	}
	if p := s.gw.peers(); len(p) != 1 || p[0].State != "no child" || p[0].Child != nil {
		t.Errorf("ours: %+v", p)
	}
	await(t, "a request of ours is answered", func() bool { return len(messages(all, false, informational, true)) > 0 })
	if err := client.Terminate("home"); err != nil {
		t.Fatal(err)
	}
	s.cleared(routes)
}

// TestStrongSwanWithoutESN: strongSwan's user-space ESP cannot carry the
// extended sequence numbers that it agrees to; it deletes the child and keeps
// the IKE SA.
func TestStrongSwanWithoutESN(t *testing.T) {
	t.Parallel()
	s := newSite(t, 1, gatewayConfig{esp: "aes256gcm16-esn"})
	client := s.client(0, "", peerConfig{esp: "aes256gcm16-esn"})
	if err := client.Initiate("net"); err == nil || !strings.Contains(err.Error(), "ESN not supported") {
		t.Errorf("strongSwan's ESP carries ESN: %v", err)
	}
	if !strings.Contains(client.Log(), "selected proposal: ESP:AES_GCM_16_256/EXT_SEQ") {
		t.Error("ESN was not agreed on")
	}
	if p := s.gw.peers(); len(p) != 1 || p[0].Child != nil {
		t.Errorf("ours: %+v", p)
	}
	if spis, tuples := tracked(t, s.gw.maps()); len(spis)+len(tuples) != 0 {
		t.Errorf("left in the maps: SPIs %x, tuples %+v", spis, tuples)
	}
}
