package measure

import (
	"math"
	"slices"
)

// Summary is what is told of the rounds of one arm.
type Summary struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	IQR    float64 `json:"iqr"` // the middle half of the rounds, as a part of the median
}

// Summarize needs one value at least.
func Summarize(values []float64) Summary {
	median := Median(values)
	return Summary{median, slices.Min(values), (Quantile(values, 0.75) - Quantile(values, 0.25)) / median}
}

// Median is the one in the middle.
func Median(values []float64) float64 { return Quantile(values, 0.5) }

// Quantile interpolates between the two values next to it.
func Quantile(values []float64, q float64) float64 {
	sorted := slices.Sorted(slices.Values(values))
	at := q * float64(len(sorted)-1)
	below := int(at)
	above := min(below+1, len(sorted)-1)
	return sorted[below] + (at-math.Floor(at))*(sorted[above]-sorted[below])
}
