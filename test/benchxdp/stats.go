package main

// perRound applies f to the arms' values of each round: what disturbed one of
// them disturbed the others, too.
func perRound(f func(ns ...float64) float64, arms ...*arm) []float64 {
	out := make([]float64, len(arms[0].ns))
	for round := range out {
		values := make([]float64, len(arms))
		for i, a := range arms {
			values[i] = a.ns[round]
		}
		out[round] = f(values...)
	}
	return out
}

func quotient(ns ...float64) float64   { return ns[0] / ns[1] }
func difference(ns ...float64) float64 { return ns[0] - ns[1] }

// netQuotient compares what two arms add to a floor, the third.
func netQuotient(ns ...float64) float64 { return (ns[0] - ns[2]) / (ns[1] - ns[2]) }
