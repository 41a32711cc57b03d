package wire

import "testing"

func FuzzParse(f *testing.F) {
	for _, m := range sampleMessages() {
		f.Add(m.Append(nil))
	}
	for _, ps := range sampleChains() {
		m := Message{Header{SPIi: 1, Exchange: IKEAuth}, ps}
		f.Add(m.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = checkParse(t, b) })
}

func FuzzParsePayloads(f *testing.F) {
	for _, ps := range sampleChains() {
		b, first := AppendPayloads(nil, ps)
		f.Add(uint8(first), b)
	}
	for _, m := range sampleMessages() {
		for _, p := range m.Payloads {
			b, first := AppendPayloads(nil, []Payload{p})
			f.Add(uint8(first), b)
		}
	}
	f.Fuzz(func(t *testing.T, first uint8, b []byte) {
		_, _ = checkParsePayloads(t, PayloadType(first), b)
	})
}
