package suite

import (
	"fmt"
	"slices"
	"strings"

	"github.com/ikepulse/ikepulse/ike/internal/wire"
)

// foreign are the algorithms that peers offer and that the table does not have,
// in swanctl's words; %d is the key length. They are names to print, nothing
// else: none of them can be agreed to. IANA registry "IKEv2 Parameters".
var foreign = map[wire.TransformType]map[uint16]string{
	wire.TransformEncr: {
		2: "des", 3: "3des", 6: "cast128", 7: "blowfish%d", 11: "null",
		12: "aes%d", 13: "aes%dctr", 14: "aes%dccm8", 15: "aes%dccm12", 16: "aes%dccm16",
		18: "aes%dgcm8", 19: "aes%dgcm12", 20: "aes%dgcm16", 21: "aes%dgmac",
		23: "camellia%d", 24: "camellia%dctr", 25: "camellia%dccm8", 26: "camellia%dccm12", 27: "camellia%dccm16",
	},
	wire.TransformPRF: {1: "prfmd5", 2: "prfsha1", 4: "prfaesxcbc", 8: "prfaescmac"},
	wire.TransformInteg: {
		1: "md5", 2: "sha1", 5: "aesxcbc", 6: "md5_128", 7: "sha1_160", 8: "aescmac",
		9: "aes128gmac", 10: "aes192gmac", 11: "aes256gmac",
	},
	wire.TransformKE: {
		1: "modp768", 2: "modp1024", 5: "modp1536", 17: "modp6144", 18: "modp8192",
		22: "modp1024s160", 23: "modp2048s224", 24: "modp2048s256", 25: "ecp192", 26: "ecp224",
		27: "ecp224bp", 28: "ecp256bp", 29: "ecp384bp", 30: "ecp512bp", 32: "x448",
		35: "mlkem512", 36: "mlkem768", 37: "mlkem1024",
	},
}

// The additional key exchanges, ADDKE1 to ADDKE7. RFC 9370 §2.2.1
const (
	firstAdditionalKE wire.TransformType = 6
	lastAdditionalKE  wire.TransformType = 12
)

// shortNames stand before a number that has no name.
var shortNames = map[wire.TransformType]string{
	wire.TransformEncr: "encr", wire.TransformPRF: "prf", wire.TransformInteg: "integ",
	wire.TransformKE: "ke", wire.TransformESN: "esn",
}

// DescribeOffer names what a peer offers, a proposal each, in swanctl's words
// and order, whether we have the algorithms or not: "aes256-sha1-modp1024". As
// there, a PRF that follows from the integrity algorithm is left out, and so are
// noesn where it is the only choice and the NONE of other types. A number
// without a name stays one, "encr(1024,256)". Proposals that read alike are named
// once. The words are ours, so they can be printed as they are.
func DescribeOffer(offer []wire.Proposal) []string {
	var all []string
	for _, p := range offer {
		if s := describe(p); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return all
}

// order is that of the words in a proposal.
var order = []wire.TransformType{
	wire.TransformEncr, wire.TransformInteg, wire.TransformPRF, wire.TransformKE, wire.TransformESN,
}

func describe(p wire.Proposal) string {
	var words []string
	for _, kind := range order {
		some := wordsOf(p, kind)
		switch kind {
		case wire.TransformPRF:
			if slices.Equal(some, impliedWords(wordsOf(p, wire.TransformInteg))) {
				some = nil
			}
		case wire.TransformESN:
			if slices.Equal(some, []string{"noesn"}) {
				some = nil
			}
		}
		words = append(words, some...)
	}
	for _, t := range p.Transforms {
		if !slices.Contains(order, t.Type) {
			words = append(words, describeTransform(t))
		}
	}
	s := strings.Join(words, "-")
	if p.Protocol != wire.ProtoIKE && p.Protocol != wire.ProtoESP {
		return fmt.Sprintf("%v:%s", p.Protocol, s)
	}
	return s
}

// wordsOf names the transforms of a type, but for NONE, which is no algorithm.
func wordsOf(p wire.Proposal, kind wire.TransformType) []string {
	var words []string
	for _, t := range p.Transforms {
		none := t.ID == 0 && (kind == wire.TransformInteg || kind == wire.TransformKE)
		if t.Type == kind && !none {
			words = append(words, describeTransform(t))
		}
	}
	return words
}

// impliedWords is the PRF with the hash of each integrity algorithm.
func impliedWords(integ []string) []string {
	var prfs []string
	for _, word := range integ {
		prfs = append(prfs, "prf"+word)
	}
	return prfs
}

// describeTransform is a transform's word. What keeps a known algorithm from
// being chosen stands behind it in brackets: a key length where none belongs or
// none where one does, or an attribute that nobody knows. RFC 7296 §3.3.5
func describeTransform(t wire.Transform) string {
	word := transformWord(t)
	if t.Unknown {
		word += "(attribute)"
	}
	return word
}

func transformWord(t wire.Transform) string {
	if t.Type >= firstAdditionalKE && t.Type <= lastAdditionalKE {
		ke := transformWord(wire.Transform{Type: wire.TransformKE, ID: t.ID, KeyBits: t.KeyBits})
		return fmt.Sprintf("ke%d_%s", t.Type-firstAdditionalKE+1, ke)
	}
	if a := find(t.Type, t.ID, t.KeyBits); a != nil {
		return a.names[0]
	}
	word, known := foreign[t.Type][t.ID]
	if a := find(t.Type, t.ID, 0); a != nil {
		word, known = a.names[0], true
	}
	switch {
	case !known:
		return numbered(t)
	case strings.Contains(word, "%d") && t.KeyBits != 0:
		return fmt.Sprintf(word, t.KeyBits)
	case strings.Contains(word, "%d"):
		return strings.Replace(word, "%d", "(0)", 1)
	case t.KeyBits != 0:
		return fmt.Sprintf("%s(%d)", word, t.KeyBits)
	}
	return word
}

// numbered is the word for a number without a name.
func numbered(t wire.Transform) string {
	short, ok := shortNames[t.Type]
	if !ok {
		short = fmt.Sprintf("transform%d", t.Type)
	}
	if t.KeyBits != 0 {
		return fmt.Sprintf("%s(%d,%d)", short, t.ID, t.KeyBits)
	}
	return fmt.Sprintf("%s(%d)", short, t.ID)
}
