package verify

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"deploytools/verify/spec"
)

// Finding is the result of one check.
type Finding struct {
	Check     string        // its name
	Type      spec.Type     // what kind of look
	Target    string        // what was looked at
	OK        bool          // it passed
	Kind      Kind          `json:",omitzero"`  // empty exactly when OK
	Detail    string        `json:",omitzero"`  // for people: all that helps
	Want      string        `json:",omitzero"`  // what would have passed, where one value says it
	Got       string        `json:",omitzero"`  // what was there instead, or the same
	Addresses []string      `json:",omitempty"` // those that did not pass, where a name has several
	NotAfter  time.Time     `json:",omitzero"`  // when the certificate that was served ends, the first to end of several
	Warning   string        `json:",omitzero"`  // for people: what passed and needs care all the same
	Life      string        `json:",omitzero"`  // which life of the process was seen: one that was started again is in another
	Attempts  int           // how often it was looked at
	Duration  time.Duration // of the last look
	At        time.Time     // when the last look began
}

// Report is what was found. The zero value is neither OK nor verified.
type Report struct {
	OK       bool          // no check failed. Not a success by itself: there may have been no checks
	Verified bool          // there were checks and each one passed: the only success
	Findings []Finding     `json:",omitempty"` // one per check, in the order of the specification
	Started  time.Time     // when the first look began
	Took     time.Duration // until the report was made
}

// State is the word to show for r: "verified", "not verified" or "failed".
func (r Report) State() string {
	switch {
	case r.Verified:
		return "verified"
	case r.OK:
		return "not verified"
	}
	return "failed"
}

// Failed returns the findings that are not OK.
func (r Report) Failed() []Finding {
	var failed []Finding
	for _, f := range r.Findings {
		if !f.OK {
			failed = append(failed, f)
		}
	}
	return failed
}

// String is one line: the check, what it looked at, and what is wrong.
func (f Finding) String() string {
	s := f.Check + " (" + string(f.Type) + " " + f.Target + "): "
	if f.OK && f.Warning != "" {
		return s + "ok; warning: " + strings.ReplaceAll(f.Warning, "\n", `\n`)
	}
	if f.OK {
		return s + "ok"
	}
	return s + string(f.Kind) + ": " + strings.ReplaceAll(f.Detail, "\n", `\n`)
}

// report closes what began at started.
func report(started time.Time, findings []Finding) Report {
	r := Report{OK: true, Findings: findings, Started: started, Took: time.Since(started)}
	for _, f := range findings {
		r.OK = r.OK && f.OK
	}
	r.Verified = r.OK && len(findings) > 0
	return r
}

// maxFindingBytes limits each text of a Finding, before escapes.
const maxFindingBytes = 8192

// clean makes foreign text harmless to a terminal and a log: everything that
// does not print is escaped, but for line ends, and what is too long cut off.
func clean(s string) string {
	if len(s) > maxFindingBytes {
		s = s[:maxFindingBytes] + "..."
	}
	if !strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) || r == utf8.RuneError }) {
		return s
	}
	var b strings.Builder
	for len(s) > 0 {
		r, n := utf8.DecodeRuneInString(s)
		if r == '\n' || unicode.IsPrint(r) && (r != utf8.RuneError || n > 1) {
			b.WriteString(s[:n])
		} else {
			q := strconv.Quote(s[:n])
			b.WriteString(q[1 : len(q)-1])
		}
		s = s[n:]
	}
	return b.String()
}

// excerpt quotes the beginning of b.
func excerpt(b []byte) string {
	const most = 200
	if len(b) > most {
		return strconv.Quote(string(b[:most])) + "..."
	}
	return strconv.Quote(string(b))
}
