package verify

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
)

// field returns the value in the JSON document b that pointer (RFC 6901) leads
// to: a string as its text, a number, true, false and null as they are written
// in the document. An object or array is an error: it has no one spelling.
func field(b []byte, pointer string) (string, error) {
	if !json.Valid(b) {
		return "", errors.New("not a JSON document")
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.UseNumber()
	var v any
	if err := d.Decode(&v); err != nil {
		return "", err
	}
	for step := range strings.SplitSeq(strings.TrimPrefix(pointer, "/"), "/") {
		step = strings.NewReplacer("~1", "/", "~0", "~").Replace(step)
		var ok bool
		switch in := v.(type) {
		case map[string]any:
			v, ok = in[step]
		case []any:
			var i int
			if i, ok = index(step, len(in)); ok {
				v = in[i]
			}
		}
		if !ok {
			return "", fmt.Errorf("there is no %q", step)
		}
	}
	switch v := v.(type) {
	case string:
		return v, nil
	case json.Number:
		return v.String(), nil
	case bool:
		return strconv.FormatBool(v), nil
	case nil:
		return "null", nil
	}
	return "", errors.New("is an object or an array, want one value")
}

// index reads an array index below n: digits without a leading zero.
func index(s string, n int) (int, bool) {
	i, err := strconv.Atoi(s)
	return i, err == nil && strconv.Itoa(i) == s && i >= 0 && i < n
}
