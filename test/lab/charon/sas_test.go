package charon

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

// listing is what swanctl 5.9.8 printed, shortened.
const listing = `list-sa event {
  home {
    uniqueid = 1
    version = 2
    state = ESTABLISHED
    local-host = 10.7.0.2
    local-port = 4500
    local-id = C=CH, CN=a client
    remote-host = 198.51.100.1
    remote-port = 4500
    remote-id = gw.example
    initiator = yes
    initiator-spi = 831d1dcb465675fb
    responder-spi = 085e11d5f046b230
    nat-local = yes
    encr-alg = AES_CBC
    encr-keysize = 256
    integ-alg = HMAC_SHA2_256_128
    prf-alg = PRF_HMAC_SHA2_256
    dh-group = CURVE_25519
    local-vips = [
      10.98.0.7
    ]
    child-sas {
      net-1 {
        name = net
        state = INSTALLED
        encap = yes
        spi-in = c2be0569
        spi-out = 089dc38b
        encr-alg = AES_GCM_16
        encr-keysize = 128
        esn = 1
        bytes-in = 84
        packets-in = 1
        bytes-out = 168
        packets-out = 2
        local-ts = [
          10.98.0.7/32
        ]
        remote-ts = [
          10.99.0.1/32
          10.99.2.0/24
        ]
      }
    }
  }
}
list-sa event {
  other {
    state = CONNECTING
    local-host = %any
    remote-host = 198.51.100.9
    remote-port = 500
    initiator-spi = 0000000000000001
    responder-spi = 0000000000000000
    child-sas {
    }
  }
}
list-sas reply {
}
`

func TestParseSAs(t *testing.T) {
	got, err := parseSAs(listing)
	if err != nil {
		t.Fatal(err)
	}
	want := []SA{{
		Connection: "home", State: "ESTABLISHED",
		Local: netip.MustParseAddrPort("10.7.0.2:4500"), Remote: netip.MustParseAddrPort("198.51.100.1:4500"),
		LocalID: "C=CH, CN=a client", RemoteID: "gw.example", Initiator: true,
		InitiatorSPI: 0x831d1dcb465675fb, ResponderSPI: 0x085e11d5f046b230, NATLocal: true,
		Encr: "AES_CBC", EncrBits: 256, Integ: "HMAC_SHA2_256_128", PRF: "PRF_HMAC_SHA2_256", DH: "CURVE_25519",
		LocalVIPs: []string{"10.98.0.7"},
		Children: []Child{{
			Name: "net", State: "INSTALLED", Encap: true, SPIIn: 0xc2be0569, SPIOut: 0x089dc38b,
			Encr: "AES_GCM_16", EncrBits: 128, ESN: true,
			BytesIn: 84, PacketsIn: 1, BytesOut: 168, PacketsOut: 2,
			LocalTS: []string{"10.98.0.7/32"}, RemoteTS: []string{"10.99.0.1/32", "10.99.2.0/24"},
		}},
	}, {
		Connection: "other", State: "CONNECTING",
		Remote: netip.MustParseAddrPort("198.51.100.9:500"), InitiatorSPI: 1,
	}}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.AddrPort{})); diff != "" {
		t.Error(diff)
	}
}

func TestParseSAsRefuses(t *testing.T) {
	for name, text := range map[string]string{
		"an end within a section": strings.TrimSuffix(listing, "}\n"),
		"an end within a list":    listing[:strings.Index(listing, "10.98.0.7")],
		"a bad SPI":               strings.Replace(listing, "c2be0569", "c2be0569ff", 1),
		"a bad key size":          strings.Replace(listing, "encr-keysize = 256", "encr-keysize = many", 1),
		"a line of another kind":  "error: connection refused\n" + listing,
		"an end too many":         listing + "}\n",
	} {
		if _, err := parseSAs(text); err == nil {
			t.Errorf("%s passes", name)
		}
	}
}
