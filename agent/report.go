package agent

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"io/fs"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"deploytools/layers/digest"
	"deploytools/registry/wire"
)

// heard is what only the running process knows and reports.
type heard struct {
	wanted  *wire.ReportedRevision // what the registry said last; nil: nothing, or that there is none
	trouble string                 // what the machine waits for
}

// report says what the agent is about. It follows from the record, which is as
// durable as a report has to be, and from what was heard. Of the machine it uses
// nothing but what is safe beside it.
func (a *Agent) report(h heard) wire.Report {
	rec := a.Record()
	r := wire.Report{
		Configuration: a.o.Name, Program: wire.ReportLine(a.o.Version, wire.MaxReportWord), Boot: rec.Boot,
		State: string(rec.State), Wanted: h.wanted, Error: reportText(h.trouble),
		Running: reportedRoot(rec.Live), Previous: reportedRoot(rec.Back),
	}
	if !a.o.Mode.Once {
		r.PollSeconds = int64((max(a.o.Poll.Interval, a.o.Poll.MaxWait)*9/8 + time.Second - 1) / time.Second)
	}
	if err := a.unable(); err != nil {
		a.keptAway(&r, err)
		return r
	}
	if rec.Hold != nil {
		r.Hold = reportText(cmp.Or(rec.Hold.Reason, "held"))
	}
	if link, err := a.link(); err == nil && rec.State == Idle && rec.Live != nil {
		switch {
		case link != rec.Live.Dir:
			r.Moved = reportText(cmp.Or(link, "nothing"))
		case !a.there(link):
			r.Moved = reportText(link + ", which is gone")
		}
	}
	w := rec.Seen()
	if !w.Failing.IsZero() {
		r.Failing, r.FailingSince = reportText(w.Checks), w.Failing
	}
	r.Expiring = reportText(w.expiring(a.o.Checks.WarnExpiry, now()))
	r.Modified = reportText(w.Difference)
	if d := cmp.Or(rec.Deployment, rec.Last); d != nil && d.New.Configuration != nil {
		r.Deployment = &wire.ReportedDeployment{
			ID: d.ID, ReportedRevision: reportedRevision(&d.New), Started: d.Started, Ended: d.Ended,
			Verdict: string(d.Verdict), Reason: reportText(d.Reason), Broken: reportText(d.Broken),
		}
		r.Output, r.Cut = printed(a.evidence(d))
	}
	if d := refused(rec, h.wanted); d != nil {
		r.Deployment = d
	}
	for _, m := range rec.Marks[max(0, len(rec.Marks)-wire.MaxFailures):] {
		r.Failures = append(r.Failures, wire.ReportedFailure{ReportedRevision: wire.ReportedRevision{Revision: m.Revision, Digest: m.Digest},
			At: m.At, Reason: wire.ReportLine(m.Reason, wire.MaxReportReason)})
	}
	r.Tag = tagOf(r)
	return r
}

// refused is what a report says in place of the last deployment where that is not
// the one that tells why the host does not run what is wanted: checks of the
// revision were refused without one, or a dry run came after it. Else it is nil.
func refused(rec *Record, wanted *wire.ReportedRevision) *wire.ReportedDeployment {
	if wanted == nil || rec.Deployment != nil {
		return nil
	}
	m := rec.marked(wire.PollState{Revision: wanted.Revision, Digest: wanted.Digest})
	if m == nil || rec.Last != nil && rec.Last.Verdict == Bad && rec.Last.New.Configuration.Digest == m.Digest {
		return nil
	}
	reason := m.Reason
	if last := rec.Last; last != nil && last.Broken != "" && last.New.Configuration.Digest != m.Digest {
		reason += fmt.Sprintf("; besides, revision %d failed: %s", last.New.Configuration.Revision, last.whyBad())
	}
	return &wire.ReportedDeployment{ReportedRevision: *wanted, Started: m.At, Ended: m.At, Verdict: string(Bad), Reason: reportText(reason)}
}

func reportText(s string) string { return wire.ReportLine(s, wire.MaxReportLine) }

func reportedRevision(r *Root) wire.ReportedRevision {
	return wire.ReportedRevision{Revision: r.Configuration.Revision, Digest: r.Configuration.Digest}
}

func reportedRoot(r *Root) *wire.ReportedRoot {
	if r == nil || r.Configuration == nil {
		return nil
	}
	return &wire.ReportedRoot{ReportedRevision: reportedRevision(r), Root: reportText(r.Dir), Since: r.Committed, Verification: string(r.Verification)}
}

// tagOf names what the report says. An error that only counts differently, such
// as bytes that are missing on the disk, is nothing new to say.
func tagOf(r wire.Report) string {
	r.Error = strings.Join(strings.FieldsFunc(r.Error, func(c rune) bool { return '0' <= c && c <= '9' }), "#")
	b, err := json.Marshal(r)
	if err != nil {
		return "0" // a time out of range; the report cannot be sent either
	}
	return digest.Of(b).String()[:wire.MaxTag]
}

// printed returns the end of what the programs of a deployment printed so far,
// in the order in which they last wrote. What cannot be read is left out: a
// report is worth more than its output.
func printed(dir string) (text string, cut bool) {
	names, err := filepath.Glob(filepath.Join(dir, "*.output"))
	if err != nil {
		return "", false
	}
	type output struct {
		name string
		at   time.Time
		end  string
		cut  bool
	}
	var all []output
	for _, name := range names {
		end, info, err := endOf(name)
		if err == nil && info.Size() > 0 {
			all = append(all, output{strings.TrimSuffix(filepath.Base(name), ".output"), info.ModTime(), end, info.Size() > int64(len(end))})
		}
	}
	slices.SortStableFunc(all, func(x, y output) int { return x.at.Compare(y.at) })
	var b strings.Builder
	for _, o := range all {
		b.WriteString("== " + o.name + "\n" + o.end)
		if !strings.HasSuffix(o.end, "\n") {
			b.WriteString("\n")
		}
		cut = cut || o.cut
	}
	text, more := wire.ReportOutput(strings.ReplaceAll(b.String(), "\r\n", "\n"))
	return text, cut || more
}

// endOf returns the end of a file, as much as a report has room for.
func endOf(name string) (string, fs.FileInfo, error) {
	f, err := openOutput(name)
	if err != nil {
		return "", nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", nil, err
	}
	b, err := io.ReadAll(io.NewSectionReader(f, max(0, info.Size()-wire.MaxReportOutput), wire.MaxReportOutput))
	return string(b), info, err
}
