package verify

import (
	"strconv"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"deploytools/verify/spec"
)

// Kind says what is wrong, so that an operator knows where to look and a
// baseline can tell an old failure from a new one.
type Kind string

// The kinds. A finding that is OK has none.
const (
	Dial         Kind = "dial"          // no connection: nothing listens, or the name is not known
	Timeout      Kind = "timeout"       // no answer in time; Detail says to what
	Handshake    Kind = "handshake"     // connected, but no TLS, or none that both accept
	WrongCert    Kind = "wrong-cert"    // another certificate is served
	HTTP         Kind = "http"          // connected, but no answer in HTTP
	HTTPStatus   Kind = "http-status"   // another status
	Body         Kind = "body"          // the body does not contain the text
	JSON         Kind = "json"          // the body is no JSON, or the field is missing or another
	Expect       Kind = "expect"        // the port says something else, or nothing
	Start        Kind = "start"         // the program cannot be started
	Exit         Kind = "exit"          // the program ended with another status than 0, or by a signal
	NotRunning   Kind = "not-running"   // the service has no main process
	WrongRoot    Kind = "wrong-root"    // its main process runs from somewhere else than NEWROOT
	NotRestarted Kind = "not-restarted" // its main process was there before the switch
	Process      Kind = "process"       // its main process cannot be looked at: rights, or no service manager
	Unsteady     Kind = "unsteady"      // the last look passed, but not often enough in a row
	Spec         Kind = "spec"          // the check cannot be carried out: a mistake in it, or no certificate in NEWROOT
	Cancelled    Kind = "cancelled"     // the caller's context was cancelled first: says nothing about the target
)

// Finding is the result of one check.
type Finding struct {
	Check    string        // its name
	Type     spec.Type     // what kind of look
	Target   string        // what was looked at
	OK       bool          // it passed
	Kind     Kind          `json:",omitzero"` // empty exactly when OK
	Detail   string        `json:",omitzero"` // for people: all that helps
	Want     string        `json:",omitzero"` // what would have passed, where one value says it
	Got      string        `json:",omitzero"` // what was there instead, or the same
	Attempts int           // how often it was looked at
	Duration time.Duration // of the last look
	At       time.Time     // when the last look began
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
