package wire

import "testing"

func TestFind(t *testing.T) {
	first, second := &Nonce{filled(16, 1)}, &Nonce{filled(16, 2)}
	cookie, rekey := &Notify{Kind: Cookie}, &Notify{Kind: RekeySA}
	idi, idr := &ID{T: TypeIDi}, &ID{T: TypeIDr}
	tsi, tsr := &TS{T: TypeTSi}, &TS{T: TypeTSr}
	ps := []Payload{rekey, idr, tsr, first, second, cookie, &Notify{Kind: Cookie}, tsi, idi}

	if n, ok := Find[*Nonce](ps); !ok || n != first {
		t.Errorf("Nonce: %v", n)
	}
	if sa, ok := Find[*SA](ps); ok || sa != nil {
		t.Errorf("SA: %v", sa)
	}
	if n, ok := FindNotify(ps, Cookie); !ok || n != cookie {
		t.Errorf("COOKIE: %v", n)
	}
	if n, ok := FindNotify(ps, InitialContact); ok || n != nil {
		t.Errorf("INITIAL_CONTACT: %v", n)
	}
	if id, ok := FindID(ps, TypeIDi); !ok || id != idi {
		t.Errorf("IDi: %v", id)
	}
	if id, ok := FindID(ps, TypeIDr); !ok || id != idr {
		t.Errorf("IDr: %v", id)
	}
	if ts, ok := FindTS(ps, TypeTSi); !ok || ts != tsi {
		t.Errorf("TSi: %v", ts)
	}
	if ts, ok := FindTS(nil, TypeTSr); ok || ts != nil {
		t.Errorf("TSr of nothing: %v", ts)
	}
}
