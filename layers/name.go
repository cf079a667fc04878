package layers

import (
	"errors"
	"fmt"
	"strings"
)

// splitName returns the components of an archive's name: what is checked here
// is what is written. The top directory, "./", has none.
func splitName(s string, k kind) ([]string, error) {
	if strings.HasPrefix(s, "/") {
		return nil, errors.New("name is absolute")
	}
	for i := range len(s) {
		if s[i] < ' ' || s[i] == 0x7f {
			return nil, errors.New("name holds a control character")
		}
	}
	if k == dir {
		if s == "." || s == "./" {
			return nil, nil
		}
		s = strings.TrimSuffix(s, "/")
	}
	for strings.HasPrefix(s, "./") {
		s = s[2:]
	}
	if len(s) > maxPath {
		return nil, fmt.Errorf("name is longer than %d bytes", maxPath)
	}
	path := strings.Split(s, "/")
	if len(path) > maxDepth {
		return nil, fmt.Errorf("name is deeper than %d directories", maxDepth)
	}
	for i, c := range path {
		switch {
		case s == "":
			return nil, errors.New("name is empty")
		case c == "" && i == len(path)-1:
			return nil, errors.New("name ends in a slash")
		case c == "":
			return nil, errors.New("name doubles a slash")
		case c == ".", c == "..":
			return nil, fmt.Errorf("name has the component %q", c)
		case len(c) > maxComponent:
			return nil, fmt.Errorf("name has a component longer than %d bytes", maxComponent)
		}
	}
	return path, nil
}
