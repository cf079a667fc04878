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
	best, least := "", max(2, len(word)/2)+1 // two letters swapped are two edits
	for _, k := range known {
		if n := edits(word, k); n < least {
			best, least = k, n
		}
	}
	return best
}

// edits counts the insertions, deletions and replacements that turn a into b
// (Levenshtein), row by row.
func edits(a, b string) int {
	row := make([]int, len(b)+1)
	for j := range row {
		row[j] = j
	}
	for i := range len(a) {
		diagonal := row[0]
		row[0] = i + 1
		for j := range len(b) {
			cost := diagonal
			if a[i] != b[j] {
				cost++
			}
			diagonal = row[j+1]
			row[j+1] = min(cost, row[j]+1, row[j+1]+1)
		}
	}
	return row[len(b)]
}
