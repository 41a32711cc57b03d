package wire

// Find gives the first payload of kind T, such as *SA or *Nonce. For *ID and
// *TS, which come in pairs, use FindID and FindTS.
func Find[T Payload](ps []Payload) (T, bool) {
	return findIf(ps, func(T) bool { return true })
}

// FindNotify gives the first notification of that kind.
func FindNotify(ps []Payload, kind NotifyType) (*Notify, bool) {
	return findIf(ps, func(n *Notify) bool { return n.Kind == kind })
}

// FindID gives the IDi or the IDr.
func FindID(ps []Payload, t PayloadType) (*ID, bool) {
	return findIf(ps, func(id *ID) bool { return id.T == t })
}

// FindTS gives the TSi or the TSr.
func FindTS(ps []Payload, t PayloadType) (*TS, bool) {
	return findIf(ps, func(ts *TS) bool { return ts.T == t })
}

func findIf[T Payload](ps []Payload, want func(T) bool) (T, bool) {
	for _, p := range ps {
		if v, ok := p.(T); ok && want(v) {
			return v, true
		}
	}
	var none T
	return none, false
}
