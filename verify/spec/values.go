package spec

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// ParseFingerprint reads the SHA-256 of a certificate in hexadecimal digits of
// either case, with or without colons, and returns 64 lower-case ones.
func ParseFingerprint(s string) (string, error) {
	hexDigits := strings.ToLower(strings.ReplaceAll(s, ":", ""))
	if b, err := hex.DecodeString(hexDigits); err != nil || len(b) != 32 {
		return "", fmt.Errorf("%s: want the 64 hexadecimal digits of a SHA-256", quote(s))
	}
	return hexDigits, nil
}

// day is one of 24 hours: certificates are not valid by the calendar.
const day = 24 * time.Hour

// parseSpan reads a duration as Go writes them, or whole days: 30d.
func parseSpan(s string) (time.Duration, error) {
	if n, ok := strings.CutSuffix(s, "d"); ok {
		days, err := strconv.ParseUint(n, 10, 16)
		return time.Duration(days) * day, err
	}
	return time.ParseDuration(s)
}

// formatSpan is what parseSpan reads back.
func formatSpan(d time.Duration) string {
	if d%day == 0 && d > 0 {
		return fmt.Sprintf("%dd", d/day)
	}
	return d.String()
}

// Status says which statuses of HTTP pass: numbers and ranges, with commas
// between, such as 200,301 or 200-299.
type Status string

// UnmarshalJSON takes a single status as a number too.
func (s *Status) UnmarshalJSON(b []byte) error {
	if n, err := strconv.Atoi(string(b)); err == nil {
		*s = Status(strconv.Itoa(n))
		return nil
	}
	var text string
	if err := json.Unmarshal(b, &text); err != nil {
		return err
	}
	*s = Status(text)
	return nil
}

// Has reports whether n is one of s, or false where s cannot be read.
func (s Status) Has(n int) bool {
	for item := range strings.SplitSeq(string(s), ",") {
		if from, to, err := statuses(item); err == nil && from <= n && n <= to {
			return true
		}
	}
	return false
}

func (s Status) validate() error {
	for item := range strings.SplitSeq(string(s), ",") {
		if _, _, err := statuses(item); err != nil {
			return fmt.Errorf("status %s: want 100 to 599, or a list with ranges such as 200,300-399", quote(string(s)))
		}
	}
	return nil
}

// statuses reads one item of a Status.
func statuses(item string) (from, to int, err error) {
	a, b, ranged := strings.Cut(item, "-")
	if !ranged {
		b = a
	}
	from, errFrom := strconv.Atoi(a)
	to, errTo := strconv.Atoi(b)
	if errFrom != nil || errTo != nil || len(a) != 3 || len(b) != 3 || from < 100 || to > 599 || from > to {
		return 0, 0, errors.New("no status")
	}
	return from, to, nil
}

// NeedAddresses returns how many of n addresses of a name must pass. Without a
// word on it each one must that accepts a connection, and one at least: then it
// is 0.
func (c Check) NeedAddresses(n int) int {
	switch c.Addresses {
	case "":
		return 0
	case AllAddresses:
		return n
	}
	k, _ := strconv.Atoi(c.Addresses) // Validate has read it
	return k
}

// Unescape returns the bytes that s stands for: \r, \n, \t, \\ and \xNN are
// one byte each, and everything else is itself.
func Unescape(s string) ([]byte, error) {
	var b []byte
	for {
		part, rest, found := strings.Cut(s, `\`)
		b = append(b, part...)
		if !found {
			return b, nil
		}
		if i := strings.IndexByte(`rnt\`, (rest + " ")[0]); i >= 0 {
			b, s = append(b, "\r\n\t\\"[i]), rest[1:]
			continue
		}
		if len(rest) < 3 || rest[0] != 'x' {
			return nil, fmt.Errorf(`%s: after a backslash want r, n, t, a backslash or xNN`, quote(part+`\`+rest))
		}
		n, err := hex.DecodeString(rest[1:3])
		if err != nil {
			return nil, fmt.Errorf(`\%s: want two hexadecimal digits after \x`, rest[:3])
		}
		b, s = append(b, n...), rest[3:]
	}
}
