package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"time"
	"unicode"

	"deploytools/layers/digest"
)

// ReportRequestType is the name of the SSH global request by which an agent
// tells what it is about (RFC 4254 section 4). Its payload is a Report in JSON.
// The agent wants no reply, so that nothing waits for one: the answer to its
// next poll says which report the registry has.
const ReportRequestType = "report@deploytools"

// Limits of a report, in bytes. Texts that may be printed grow to at most twice
// their length in JSON, so the longest of them fit.
const (
	MaxReportBytes  = 160 << 10
	MaxReportLine   = 1000 // of one text
	MaxReportOutput = 64 << 10
	MaxReportWord   = 128
	MaxTag          = 16
	MaxInstance     = 32
	MaxFailures     = 8
	MaxReportReason = 300 // of a failure
)

// ErrReport says that a report is not valid.
var ErrReport = errors.New("not a valid report")

// Report is what an agent says of one configuration on its host. The name of the
// host is not in it: that is the key's. Times are by the host's clock, and are
// worth what that is worth: Sent is there to compare it with.
type Report struct {
	Tag           string // names what the report says, but for Sent: 1 to 16 of a-z 0-9
	Configuration string
	Instance      string `json:",omitzero"` // tells agents with one key apart: up to 32 of a-z 0-9
	Program       string `json:",omitzero"` // version of the agent
	Boot          string `json:",omitzero"` // names the time since the host's kernel started
	PollSeconds   int64  `json:",omitzero"` // between two polls, at most; 0: it runs now and then
	Sent          time.Time

	State    string            // of its machine
	Wanted   *ReportedRevision `json:",omitempty"` // what the registry told it last
	Running  *ReportedRoot     `json:",omitempty"` // the committed root that serves
	Previous *ReportedRoot     `json:",omitempty"` // committed before: to fall back on
	Moved    string            `json:",omitzero"`  // what `current` names, where that is not Running, or no longer there
	Hold     string            `json:",omitzero"`  // why this host starts nothing new
	Error    string            `json:",omitzero"`  // what it waits for

	Failing      string    `json:",omitzero"` // checks of Running that fail, between deployments
	FailingSince time.Time `json:",omitzero"`
	Expiring     string    `json:",omitzero"` // certificate that ends soon, and when
	Modified     string    `json:",omitzero"` // in what Running differs from what was unpacked

	Deployment *ReportedDeployment `json:",omitempty"` // under way, or the last one
	Failures   []ReportedFailure   `json:",omitempty"` // what failed here and is not tried again by itself, the newest last: at most MaxFailures
	Output     string              `json:",omitzero"`  // of its programs, the end
	Cut        bool                `json:",omitzero"`  // Output is not all of it
}

// ReportedRevision names what is to be deployed.
type ReportedRevision struct {
	Revision uint64 `json:",omitzero"`
	Digest   digest.Digest
}

// ReportedRoot is a root of the host.
type ReportedRoot struct {
	ReportedRevision
	Root         string    // its directory
	Since        time.Time // when it was committed
	Verification string    // verified, unverified or environment
}

// ReportedDeployment is how far one came.
type ReportedDeployment struct {
	ID string
	ReportedRevision
	Started time.Time
	Ended   time.Time `json:",omitzero"` // zero: it is under way
	Verdict string    `json:",omitzero"` // empty: committed, or not decided
	Reason  string    `json:",omitzero"` // of the verdict
	Broken  string    `json:",omitzero"` // why the rollback failed as well
}

// ReportedFailure is a revision that failed on the host, whatever was deployed since.
type ReportedFailure struct {
	ReportedRevision
	At     time.Time
	Reason string // of the verdict, at most MaxReportReason bytes
}

// EncodeReport returns the payload.
func EncodeReport(r Report) ([]byte, error) {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false)
	err := e.Encode(r)
	return bytes.TrimSuffix(b.Bytes(), []byte("\n")), err
}

// DecodeReport reads a payload and checks every text in it: what passes can be
// shown on any terminal. It believes a report nothing else.
func DecodeReport(b []byte) (Report, error) {
	var r Report
	if len(b) > MaxReportBytes {
		return r, fmt.Errorf("%d bytes, more than %d: %w", len(b), MaxReportBytes, ErrReport)
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("%w: %w", ErrReport, err)
	}
	return r, r.check()
}

func (r *Report) check() error {
	if err := CheckName(r.Configuration); err != nil {
		return fmt.Errorf("%w: %w", ErrReport, err)
	}
	if r.Tag == "" || len(r.Tag) > MaxTag || !plain(r.Tag) {
		return fmt.Errorf("tag %.40q: %w", r.Tag, ErrReport)
	}
	if err := CheckInstance(r.Instance); err != nil {
		return err
	}
	if r.State == "" || r.PollSeconds < 0 {
		return fmt.Errorf("no state, or a negative time: %w", ErrReport)
	}
	type text struct {
		s   string
		max int
	}
	texts := []text{
		{r.Program, MaxReportWord}, {r.Boot, MaxReportWord}, {r.State, MaxReportWord},
		{r.Moved, MaxReportLine}, {r.Hold, MaxReportLine}, {r.Error, MaxReportLine},
		{r.Failing, MaxReportLine}, {r.Expiring, MaxReportLine}, {r.Modified, MaxReportLine},
	}
	for _, root := range []*ReportedRoot{r.Running, r.Previous} {
		if root != nil {
			texts = append(texts, text{root.Root, MaxReportLine}, text{root.Verification, MaxReportWord})
		}
	}
	if d := r.Deployment; d != nil {
		texts = append(texts, text{d.ID, MaxReportWord}, text{d.Verdict, MaxReportWord}, text{d.Reason, MaxReportLine}, text{d.Broken, MaxReportLine})
	}
	if len(r.Failures) > MaxFailures {
		return fmt.Errorf("%d failures, more than %d: %w", len(r.Failures), MaxFailures, ErrReport)
	}
	for _, f := range r.Failures {
		texts = append(texts, text{f.Reason, MaxReportReason})
	}
	for _, t := range texts {
		if t.s != ReportLine(t.s, t.max) {
			return fmt.Errorf("text %.40q: should be one line of at most %d bytes: %w", t.s, t.max, ErrReport)
		}
	}
	if out, _ := ReportOutput(r.Output); out != r.Output {
		return fmt.Errorf("output: should be printable lines of at most %d bytes: %w", MaxReportOutput, ErrReport)
	}
	return nil
}

// CheckInstance holds the rule for what tells agents with one key apart: up to
// 32 lower-case letters and digits.
func CheckInstance(s string) error {
	if len(s) > MaxInstance || !plain(s) {
		return fmt.Errorf("instance %.40q: should be at most %d lower-case letters and digits: %w", s, MaxInstance, ErrReport)
	}
	return nil
}

func plain(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return (r < '0' || r > '9') && (r < 'a' || r > 'z') })
}

// ReportLine makes one printable line of s, of at most limit bytes: what is not
// printable becomes ?, and the end is cut off visibly.
func ReportLine(s string, limit int) string {
	s = strings.Map(func(r rune) rune {
		if r == unicode.ReplacementChar || !unicode.IsPrint(r) {
			return '?'
		}
		return r
	}, s)
	if len(s) <= limit {
		return s
	}
	return strings.ToValidUTF8(s[:limit-3], "") + "..."
}

// ReportOutput makes printable lines of the end of s, at most MaxReportOutput
// bytes of it, and reports whether that is not all.
func ReportOutput(s string) (out string, cut bool) {
	s = strings.Map(func(r rune) rune {
		if r == '\n' || r == '\t' || unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, s)
	if len(s) <= MaxReportOutput {
		return s, false
	}
	return strings.ToValidUTF8(s[len(s)-MaxReportOutput:], ""), true
}
