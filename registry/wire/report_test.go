package wire

import (
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"deploytools/layers/digest"
)

func sampleReport() Report {
	at := time.Date(2026, 11, 21, 18, 50, 0, 0, time.UTC)
	now, before := ReportedRevision{7, sample().Digest}, ReportedRevision{6, digest.Of([]byte("6"))}
	return Report{
		Tag: "5d0c31aa7e92bf46", Configuration: "project1", Instance: "3f9c2ab471d04e58", Program: "v1.2.3",
		Boot: "0a1b2c3d-0000-4000-8000-000000000000", PollSeconds: 34, Sent: at.Add(30 * time.Second),
		State: "Idle", Wanted: &now,
		Running:  &ReportedRoot{before, "roots/000006-1f3a9c77d2e0", at.Add(-24 * time.Hour), "verified"},
		Previous: &ReportedRoot{ReportedRevision{5, digest.Of([]byte("5"))}, "roots/000005-0c5be2a1d8f4", at.Add(-48 * time.Hour), "unverified"},
		Deployment: &ReportedDeployment{
			ID: "000007-9b20a4c1e6d3", ReportedRevision: now, Started: at, Ended: at.Add(20 * time.Second),
			Verdict: "bad", Reason: `verification failed: 1 (tls localhost:443): wrong-cert: <old>`,
		},
		Failures: []ReportedFailure{{now, at.Add(20 * time.Second), `verification failed: 1 (tls localhost:443): wrong-cert: <old>`}},
		Output:   "reloading\n\"done\"\n",
	}
}

func encodedReport(t testing.TB, r Report) []byte {
	t.Helper()
	b, err := EncodeReport(r)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func TestReportFormat(t *testing.T) {
	want := sampleReport()
	b := golden(t, "report.json", append(encodedReport(t, want), '\n'))
	if got, err := DecodeReport(b); err != nil || !reflect.DeepEqual(got, want) {
		t.Errorf("DecodeReport = %+v, %v, want %+v", got, err, want)
	}
	least := Report{Tag: "1", Configuration: "web", State: "Idle", Sent: want.Sent}
	b = golden(t, "report-least.json", append(encodedReport(t, least), '\n'))
	if got, err := DecodeReport(b); err != nil || !reflect.DeepEqual(got, least) {
		t.Errorf("DecodeReport = %+v, %v, want %+v", got, err, least)
	}
	later := strings.Replace(string(b), `"State"`, `"Mood":{"good":[1]},"State"`, 1)
	if got, err := DecodeReport([]byte(later)); err != nil || !reflect.DeepEqual(got, least) {
		t.Errorf("with a field of later: DecodeReport = %+v, %v, want %+v", got, err, least)
	}
	if ReportRequestType != "report@deploytools" {
		t.Errorf("ReportRequestType = %q", ReportRequestType)
	}
}

// Limits fit together: whatever the helpers make of any text is taken.
func TestLongestReport(t *testing.T) {
	for _, text := range []string{`"`, "\n", "\\", "é", "\u2028", "\xff", "\x1b[2J", "\u202e", "日"} {
		r := sampleReport()
		long := ReportLine(strings.Repeat(text, MaxReportLine), MaxReportLine)
		r.Moved, r.Hold, r.Error, r.Running.Root, r.Previous.Root, r.Deployment.Reason, r.Deployment.Broken = long, long, long, long, long, long, long
		r.Failing, r.Expiring, r.Modified = long, long, long
		word := ReportLine(strings.Repeat(text, MaxReportWord), MaxReportWord)
		r.Program, r.Boot, r.State, r.Running.Verification, r.Previous.Verification, r.Deployment.ID, r.Deployment.Verdict = word, word, word, word, word, word, word
		for len(r.Failures) < MaxFailures {
			r.Failures = append(r.Failures, ReportedFailure{*r.Wanted, r.Sent, ReportLine(long, MaxReportReason)})
		}
		r.Failures[0].Reason = r.Failures[1].Reason
		var cut bool
		r.Output, cut = ReportOutput(strings.Repeat(text, MaxReportOutput+1))
		if !cut || len(r.Output) > MaxReportOutput || len(r.Output) < MaxReportOutput-utf8.UTFMax || len(long) > MaxReportLine {
			t.Errorf("%q: %d bytes of output, cut: %t; %d bytes of a line", text, len(r.Output), cut, len(long))
		}
		if _, err := DecodeReport(encodedReport(t, r)); err != nil {
			t.Errorf("%q: DecodeReport = %v", text, err)
		}
	}
}

func TestDecodeReportRefuses(t *testing.T) {
	for name, change := range map[string]func(*Report){
		"no tag":                 func(r *Report) { r.Tag = "" },
		"long tag":               func(r *Report) { r.Tag = strings.Repeat("a", MaxTag+1) },
		"tag with a quote":       func(r *Report) { r.Tag = `"` },
		"no configuration":       func(r *Report) { r.Configuration = "" },
		"path":                   func(r *Report) { r.Configuration = "../web" },
		"instance with a slash":  func(r *Report) { r.Instance = "a/b" },
		"instance with a space":  func(r *Report) { r.Instance = "a b" },
		"long instance":          func(r *Report) { r.Instance = strings.Repeat("a", MaxInstance+1) },
		"no state":               func(r *Report) { r.State = "" },
		"negative time":          func(r *Report) { r.PollSeconds = -1 },
		"escape in the state":    func(r *Report) { r.State = "\x1b[2J" },
		"escape in the version":  func(r *Report) { r.Program = "\x1b[2J" },
		"escape in the boot id":  func(r *Report) { r.Boot = "\x1b[2J" },
		"two lines of error":     func(r *Report) { r.Error = "a\nb" },
		"other order of letters": func(r *Report) { r.Hold = "\u202e" },
		"two lines of a link":    func(r *Report) { r.Moved = "a\nb" },
		"long error":             func(r *Report) { r.Error = strings.Repeat("a", MaxReportLine+1) },
		"escape in a root":       func(r *Report) { r.Running.Root = "\x9b" },
		"escape in a word":       func(r *Report) { r.Previous.Verification = "\a" },
		"escape in an id":        func(r *Report) { r.Deployment.ID = "\a" },
		"escape in a verdict":    func(r *Report) { r.Deployment.Verdict = "\a" },
		"escape in a reason":     func(r *Report) { r.Deployment.Reason = "\a" },
		"escape in the rollback": func(r *Report) { r.Deployment.Broken = "\a" },
		"escape in a failure":    func(r *Report) { r.Failures[0].Reason = "\a" },
		"long failure":           func(r *Report) { r.Failures[0].Reason = strings.Repeat("a", MaxReportReason+1) },
		"too many failures":      func(r *Report) { r.Failures = make([]ReportedFailure, MaxFailures+1) },
		"escape in the output":   func(r *Report) { r.Output = "a\n\x1b[2J" },
		"return in the output":   func(r *Report) { r.Output = "a\rb" },
		"long output":            func(r *Report) { r.Output = strings.Repeat("a", MaxReportOutput+1) },
	} {
		r := sampleReport()
		change(&r)
		if got, err := DecodeReport(encodedReport(t, r)); !errors.Is(err, ErrReport) || len(err.Error()) > 400 {
			t.Errorf("%s: DecodeReport = %+v, %v, want ErrReport", name, got, err)
		}
	}
	good := string(encodedReport(t, sampleReport()))
	for name, text := range map[string]string{
		"nothing": "", "null": "null", "no object": "[]", "cut off": good[:len(good)/2], "short digest": strings.Replace(good, `"Digest":"d2`, `"Digest":"`, 1),
		"bad time": strings.Replace(good, "T18:50", "T28:50", 1), "negative revision": strings.Replace(good, `"Revision":7`, `"Revision":-7`, 1),
		"bytes that are no text": strings.Replace(good, "<old>", "\xff", 1), "too long": good + strings.Repeat(" ", MaxReportBytes),
	} {
		if got, err := DecodeReport([]byte(text)); !errors.Is(err, ErrReport) || text == good {
			t.Errorf("%s: DecodeReport = %+v, %v, want ErrReport", name, got, err)
		}
	}
}

func FuzzDecodeReport(f *testing.F) {
	f.Add(encodedReport(f, sampleReport()))
	f.Add([]byte(`{"Tag":"a","Configuration":"a","State":"x","Output":"a\n\tb","Running":{},"Deployment":{}}`))
	f.Add([]byte(`{"Tag":"a","Configuration":"a","State":"x","Error":"\u001b\u202e"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeReport(b)
		if err != nil {
			if !errors.Is(err, ErrReport) {
				t.Errorf("DecodeReport(%q) = %v, not an ErrReport", b, err)
			}
			return
		}
		text := encodedReport(t, r)
		if again, err := DecodeReport(text); err != nil || !reflect.DeepEqual(encodedReport(t, again), text) {
			t.Errorf("DecodeReport(%q) = %+v, again: %+v, %v", b, r, again, err)
		}
		// What is shown must not steer a terminal.
		for _, s := range []string{r.State, r.Error, r.Hold, r.Moved, r.Program, strings.NewReplacer("\n", "", "\t", "").Replace(r.Output)} {
			if strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsPrint(r) }) {
				t.Errorf("DecodeReport(%q) passes %q", b, s)
			}
		}
	})
}
