package spec

import (
	"fmt"
	"strings"
)

// unknown is the error about a word that is none of known.
func unknown[T ~string](what string, word T, known []T) error {
	list := make([]string, len(known))
	for i, k := range known {
		list[i] = string(k)
	}
	hint := ""
	if n := nearest(string(word), list); n != "" {
		hint = fmt.Sprintf(" (did you mean %q?)", n)
	}
	return fmt.Errorf("unknown %s %s%s; known: %s", what, quote(string(word)), hint, strings.Join(list, ", "))
}

// nearest returns the first of known that takes the fewest edits to reach from
// word, or nothing when word is no likely slip of any.
func nearest(word string, known []string) string {
	word = strings.ToLower(strings.TrimSpace(word))
	if len(word) > 40 {
		return ""
	}
	best, least := "", max(2, len(word)/2)+1
	for _, k := range known {
		if n := edits(word, k); n < least {
			best, least = k, n
		}
	}
	return best
}

// edits counts the insertions, deletions, replacements and swaps of neighbours
// that turn a into b (optimal string alignment), row by row.
func edits(a, b string) int {
	above, row := []int(nil), make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		twoAbove := above
		above, row = row, make([]int, len(b)+1)
		row[0] = i + 1
		for j := range len(b) {
			cost := above[j]
			if a[i] != b[j] {
				cost++
			}
			row[j+1] = min(cost, row[j]+1, above[j+1]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				row[j+1] = min(row[j+1], twoAbove[j-1]+1)
			}
		}
	}
	return row[len(b)]
}
