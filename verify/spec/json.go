package spec

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"
)

// UnmarshalText takes the types that this package knows and no other: a check
// that cannot be carried out must not be skipped.
func (t *Type) UnmarshalText(b []byte) error {
	if v := Type(b); slices.Contains(types, v) {
		*t = v
		return nil
	}
	return unknown("type", Type(b), types)
}

// duration is a time.Duration that JSON spells as people do: "1m30s".
type duration time.Duration

func (d duration) MarshalText() ([]byte, error) { return []byte(time.Duration(d).String()), nil }

func (d *duration) UnmarshalText(b []byte) error {
	v, err := time.ParseDuration(string(b))
	if err != nil {
		return fmt.Errorf("%s: want a duration such as 10s", quote(string(b)))
	}
	*d = duration(v)
	return nil
}

// In the four methods below the outer fields hide the embedded ones of the
// same name, so that only their form differs; plain has no methods, which ends
// the recursion.

// MarshalJSON writes durations as text.
func (c Check) MarshalJSON() ([]byte, error) {
	type plain Check
	return json.Marshal(struct {
		plain
		MinValid duration `json:",omitzero"`
		Warn     duration `json:",omitzero"`
		Timeout  duration `json:",omitzero"`
	}{plain(c), duration(c.MinValid), duration(c.Warn), duration(c.Timeout)})
}

// UnmarshalJSON reads what MarshalJSON writes, and a fingerprint in any form
// that ParseFingerprint reads. A field that it does not know is an error: what
// it asks for would go unchecked. It does not validate.
func (c *Check) UnmarshalJSON(b []byte) error {
	type plain Check
	var v struct {
		plain
		MinValid, Warn, Timeout duration
	}
	d := json.NewDecoder(bytes.NewReader(b))
	d.DisallowUnknownFields()
	if err := d.Decode(&v); err != nil {
		if field, ok := strings.CutPrefix(err.Error(), "json: unknown field "); ok {
			return fmt.Errorf("unknown field %s of a check: whoever wrote it is newer than this program", field)
		}
		return err
	}
	*c = Check(v.plain)
	c.MinValid, c.Warn, c.Timeout = time.Duration(v.MinValid), time.Duration(v.Warn), time.Duration(v.Timeout)
	for _, sum := range []*string{&c.Fingerprint, &c.SPKI} {
		if f, err := ParseFingerprint(*sum); err == nil {
			*sum = f
		}
	}
	return nil
}

// MarshalJSON writes durations as text.
func (s Spec) MarshalJSON() ([]byte, error) {
	type plain Spec
	return json.Marshal(struct {
		plain
		Total duration `json:",omitzero"`
		Soak  duration `json:",omitzero"`
	}{plain(s), duration(s.Total), duration(s.Soak)})
}

// UnmarshalJSON reads what MarshalJSON writes. It does not validate.
func (s *Spec) UnmarshalJSON(b []byte) error {
	type plain Spec
	var v struct {
		plain
		Total, Soak duration
	}
	if err := json.Unmarshal(b, &v); err != nil {
		return err
	}
	*s = Spec(v.plain)
	s.Total, s.Soak = time.Duration(v.Total), time.Duration(v.Soak)
	return nil
}
