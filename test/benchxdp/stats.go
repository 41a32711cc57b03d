package main

import (
	"math"
	"slices"
)

// summary is what is told of one arm's rounds.
type summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	IQR    float64 `json:"iqr"` // the middle half of the rounds, as a part of the median
}

func summarize(ns []float64) summary {
	median := quantile(ns, 0.5)
	return summary{median, slices.Min(ns), (quantile(ns, 0.75) - quantile(ns, 0.25)) / median}
}

func median(values []float64) float64 { return quantile(values, 0.5) }

// quantile interpolates between the two values next to it.
func quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-math.Floor(at))*(sorted[above]-sorted[below])
}

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
