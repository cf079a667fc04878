package cmd_test

import (
	"fmt"
	"os"
	"regexp"
)

// awaitMatch waits until file matches behind the byte from, and returns where
// the match ends.
func awaitMatch(file string, re *regexp.Regexp, from int) (end int, err error) {
	err = poll(func() (bool, error) {
		b, err := os.ReadFile(file)
		if err != nil && !os.IsNotExist(err) {
			return false, err
		}
		if len(b) < from {
			return false, fmt.Errorf("file is shorter than before")
		}
		loc := re.FindIndex(b[from:])
		if loc == nil {
			return false, nil
		}
		end = from + loc[1]
		return true, nil
	})
	return end, err
}
