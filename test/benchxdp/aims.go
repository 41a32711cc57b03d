package main

import "fmt"

// The aims of the project for this path.
const (
	aimFloor    = 1.25 // a keepalive, of the floor
	aimKernel   = 8    // the kernel's way with a keepalive, of ours
	aimLimit    = 1.5  // ESP, of parse and one load
	aimTextbook = 4    // the textbook's way with ESP, of ours
)

// aim is a bound on the ratio of two arms.
type aim struct {
	what    string
	of, to  *arm
	bound   float64
	atLeast bool
}

func (a aim) holds(ratio float64) bool {
	if a.atLeast {
		return ratio >= a.bound
	}
	return ratio <= a.bound
}

func (b *bench) aim(a aim) { b.aims = append(b.aims, a) }

// aimKeepalives takes the arms on the link; kernel may be nil.
func (b *bench) aimKeepalives(p *population, arms []*arm, kernel *arm) {
	for _, i := range []int{absorbed, answered} {
		verb := map[int]string{absorbed: "absorbed", answered: "answered"}[i]
		what := fmt.Sprintf("a keepalive %s on a link, tuples: %s", verb, p)
		b.aim(aim{what: what, of: arms[i], to: arms[i].floor, bound: aimFloor})
		if kernel != nil {
			b.aim(aim{what: "the kernel, and " + what, of: kernel, to: arms[i], bound: aimKernel, atLeast: true})
		}
	}
}

// aimESP is for as many SPIs as miss every cache: the largest population. One
// miss is one that is waited for; without the chain, a shorter program has the
// next frame's miss under way before this one's has come.
func (b *bench) aimESP(s *espSection) {
	if s.population.members != b.members[len(b.members)-1] || s.spread.name != uniform.name {
		return
	}
	for _, name := range []string{armNewTicksChained, armNewTicks, armOneTick} {
		a := s.arm(name)
		b.aim(aim{what: fmt.Sprintf("ESP, SPIs: %s, %s", s.population, name), of: a, to: a.limit, bound: aimLimit})
	}
	for _, name := range []string{armNewTicksChained, armNewTicks, armOneTick} {
		what := fmt.Sprintf("the textbook, and ESP, SPIs: %s, %s", s.population, name)
		b.aim(aim{what: what, of: s.arm(armTextbook), to: s.arm(name), bound: aimTextbook, atLeast: true})
	}
}
