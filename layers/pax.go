package layers

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// fieldMax is the first size that 11 octal digits cannot hold.
const fieldMax = 8 << 30

// inlineMap stands for the map of a sparse file in records of its own.
const inlineMap = "inline"

// paxRecords reads "LENGTH KEY=VALUE\n" records.
func paxRecords(s string) (map[string]string, error) {
	m := make(map[string]string)
	for s != "" {
		digits, _, ok := strings.Cut(s, " ")
		n, err := strconv.ParseUint(digits, 10, 31)
		if !ok || err != nil || n > uint64(len(s)) || int(n) < len(digits)+3 || s[n-1] != '\n' {
			return nil, errors.New("malformed pax record")
		}
		k, v, ok := strings.Cut(s[len(digits)+1:n-1], "=")
		if !ok || k == "" {
			return nil, errors.New("malformed pax record")
		}
		s = s[n:]
		if k == "GNU.sparse.offset" || k == "GNU.sparse.numbytes" {
			// Version 0.0 repeats these two, in place of a map.
			if k, v = "GNU.sparse.map", inlineMap; m[k] == v {
				continue
			}
		}
		if _, twice := m[k]; twice {
			return nil, fmt.Errorf("pax record %s is given twice", quote(k))
		}
		switch k {
		case "path", "linkpath", "size", "GNU.sparse.name":
			// An empty record takes a global one back; some readers take the
			// empty text. A NUL ends the text for readers in C.
			if v == "" || strings.Contains(v, "\x00") {
				return nil, fmt.Errorf("pax record %q is empty or holds a NUL", k)
			}
		}
		m[k] = v
	}
	return m, nil
}

// sparseForm says whether pax records make a sparse file, in one of the forms
// of the GNU tar manual, "Storing Sparse Files": 0.0, 0.1 or 1.0. In any other,
// one reader would see the holes and another the bytes as they are stored.
func sparseForm(pax map[string]string) (bool, error) {
	n := 0
	for k := range pax {
		if strings.HasPrefix(k, "GNU.sparse.") {
			n++
		}
	}
	if n == 0 {
		return false, nil
	}
	has := func(k string) bool { return pax["GNU.sparse."+k] != "" }
	major, minor := pax["GNU.sparse.major"], pax["GNU.sparse.minor"]
	switch {
	case major == "1" && minor == "0" && has("realsize") && !has("size") && !has("map"):
		return true, nil
	case (major == "0" && (minor == "0" || minor == "1") || major == "" && minor == "") && has("map") && has("size") && !has("realsize"):
		return true, nil
	}
	return false, errors.New("unknown form of a sparse file")
}

// paxSize returns the size of the data: the field's or, where the field
// cannot hold it, the pax record's.
func (e *raw) paxSize() (int64, error) {
	v, ok := e.pax["size"]
	if !ok {
		return e.size, nil
	}
	n, err := strconv.ParseUint(v, 10, 63)
	if err != nil {
		return 0, fmt.Errorf("pax record size is %s", quote(v))
	}
	// What stands in a field that is too small is 0, or all that it can hold.
	tooSmall := n >= fieldMax && (e.size == 0 || e.size == fieldMax-1)
	if int64(n) != e.size && !tooSmall {
		return 0, fmt.Errorf("two sizes: %d in the header, %d in its pax record", e.size, n)
	}
	return int64(n), nil
}
