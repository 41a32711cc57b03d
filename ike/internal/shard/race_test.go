//go:build race

package shard

// raceDetector is there: what takes many thousand rounds takes fewer.
const raceDetector = true
