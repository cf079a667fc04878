package console

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
	"deploytools/registry/wire"
)

type auditOp struct {
	since, until, seen string
	filter             registry.AuditFilter
	verify             bool
}

func (a *auditOp) Flags(fs *pflag.FlagSet) {
	fs.StringVar(&a.since, "since", "", "entries from this `time` on, or so long ago, such as 2h")
	fs.StringVar(&a.until, "until", "", "entries before this `time`, or so long ago")
	fs.StringVar(&a.filter.User, "user", "", "entries of this user `name`, or of this label, comment or fingerprint of a key")
	fs.StringVar(&a.filter.Command, "command", "", "entries about this `command`")
	fs.StringVar(&a.filter.Name, "name", "", "entries about the configuration or component of this `name`")
	fs.IntVar(&a.filter.Newest, "n", 0, "the newest entries, at most this `number`; 0 is all")
	fs.BoolVar(&a.verify, "verify", false, "show no entries, but whether they are as they were written")
	fs.StringVar(&a.seen, "seen", "", "what -verify printed once, `number:hash`: the entry must still be that one")
}

func (a *auditOp) suggest(ctx context.Context, s *Session, flag string) ([]string, error) {
	switch flag {
	case "command":
		return names(), nil
	case "name":
		configurations, err := configNames(ctx, s)
		if err != nil {
			return nil, err
		}
		components, err := s.Registry.Components(ctx)
		return append(configurations, components...), err
	}
	return nil, nil
}

func (a *auditOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	var err error
	now := s.Registry.Now()
	if a.filter.Since, err = Moment("since", a.since, now, -1); err != nil {
		return nil, err
	}
	if a.filter.Until, err = Moment("until", a.until, now, -1); err != nil {
		return nil, err
	}
	switch {
	case a.verify:
		return a.verified(ctx, s)
	case a.seen != "":
		return nil, usage("-seen goes with -verify")
	case a.filter.Newest < 0:
		return nil, usage("-n cannot be negative")
	}
	return rows(func(yield func(Result, error) bool) {
		for e, err := range s.Registry.Audit(ctx, a.filter) {
			if !yield(entryOf(e), err) {
				return
			}
		}
	}), nil
}

// entry is one line of the audit log.
type entry struct {
	Schema  Schema        `json:"schema"`
	Seq     uint64        `json:"seq"`
	Time    time.Time     `json:"time"`
	User    string        `json:"user"`
	Key     string        `json:"key_fingerprint"`
	Comment string        `json:"comment"`
	Label   string        `json:"label,omitempty"`
	CA      string        `json:"authority,omitempty"`
	Serial  uint64        `json:"serial,omitempty"`
	Remote  string        `json:"remote"`
	Role    string        `json:"role"`
	Command []string      `json:"command"`
	Name    string        `json:"name,omitempty"`
	Status  wire.Status   `json:"status"`
	Result  string        `json:"result"`
	Note    string        `json:"note,omitempty"`
	Prev    digest.Digest `json:"prev"`
}

func entryOf(e registry.Entry) entry {
	out := entry{
		Seq: e.Seq, Time: e.Time, User: Clean(e.User), Key: Clean(e.Key), Comment: Clean(e.Comment),
		Label: Clean(e.Label), CA: Clean(e.Authority), Serial: e.Serial, Remote: Clean(e.Remote), Role: e.Role,
		Command: []string{}, Name: Clean(e.Name), Status: e.Status, Result: Clean(e.Result), Note: Clean(e.Note), Prev: e.Prev,
	}
	for _, word := range e.Command {
		out.Command = append(out.Command, Clean(word))
	}
	return out
}

// Text prints who, from where and with which outcome, and then the words.
func (e entry) Text(w io.Writer) error {
	who := e.User
	if named := cmp.Or(e.Label, e.Comment); named != "" {
		who += " (" + named + ")"
	}
	outcome := "done: "
	if e.Status != wire.OK {
		outcome = "refused, " + e.Status.String() + ": "
	}
	line := []string{strconv.FormatUint(e.Seq, 10), timeText(e.Time), who, e.Key, e.Remote, Join(e.Command), outcome + e.Result}
	if e.Note != "" {
		line = append(line, "note: "+e.Note)
	}
	_, err := fmt.Fprintln(w, strings.Join(line, "   "))
	return err
}

// auditState is what -verify prints.
type auditState struct {
	Schema Schema        `json:"schema"`
	First  uint64        `json:"first"`
	Last   uint64        `json:"last"`
	Hash   digest.Digest `json:"hash"`
}

func (a auditState) Text(w io.Writer) error {
	if a.Last < a.First {
		_, err := fmt.Fprintln(w, "the audit log has no entries")
		return err
	}
	_, err := fmt.Fprintf(w, "entries %d to %d are as they were written\nkeep this elsewhere, for -seen: %d:%s\n", a.First, a.Last, a.Last, a.Hash)
	return err
}

func (a *auditOp) verified(ctx context.Context, s *Session) (Result, error) {
	if err := a.asSeen(ctx, s); err != nil {
		return nil, err
	}
	got, err := s.Registry.VerifyAudit(ctx)
	if err != nil {
		return nil, err
	}
	if got.Broken != 0 {
		return nil, fmt.Errorf("audit log is broken: entry %d of %d to %d: %s", got.Broken, got.First, got.Last, got.Reason)
	}
	return auditState{First: got.First, Last: got.Last, Hash: got.Hash}, nil
}

// asSeen compares the entry that -seen names with what it was.
func (a *auditOp) asSeen(ctx context.Context, s *Session) error {
	if a.seen == "" {
		return nil
	}
	number, hash, _ := strings.Cut(a.seen, ":")
	seq, err := strconv.ParseUint(number, 10, 64)
	was, bad := digest.Parse(hash)
	if err != nil || bad != nil {
		return usage("-seen %q: should be number:hash", a.seen)
	}
	is, err := s.Registry.AuditHash(ctx, seq)
	if err == nil && is != was {
		err = fmt.Errorf("audit log is broken: entry %d has the hash %s and not %s: it was written anew", seq, is, was)
	}
	return err
}
