package rotation

import (
	"slices"
	"strings"
)

// Difference says what one of two lists has and the other has not, as of what two versions
// may do: "+ more, - less", or "".
func Difference(one, other []string) string {
	var parts []string
	for _, text := range one {
		if !slices.Contains(other, text) {
			parts = append(parts, "+ "+text)
		}
	}
	for _, text := range other {
		if !slices.Contains(one, text) {
			parts = append(parts, "- "+text)
		}
	}
	return strings.Join(parts, ", ")
}
