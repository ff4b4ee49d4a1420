package drawbridge

import (
	"slices"
	"testing"
)

func TestADependencyIsDownAfterFourFailuresAndUpAfterTwoSuccesses(t *testing.T) {
	settled := func(results ...bool) []int {
		state, at := damper{}, []int{}
		for index, isUp := range results {
			if state.record(isUp) {
				at = append(at, index)
			}
		}
		return at
	}
	const up, down = true, false
	found := settled(up, down, down, down, up, down, down, down, down, down, up, down, up, up)
	if !slices.Equal(found, []int{0, 8, 9, 11, 13}) {
		t.Fatal(found)
	}
	// The first success counts.
	if found = settled(append(slices.Repeat([]bool{down}, 8), up)...); !slices.Equal(found, []int{7, 8}) {
		t.Fatal(found)
	}
}
