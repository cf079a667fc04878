package console

import (
	"context"
	"fmt"
	"io"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"deploytools/registry"
	"deploytools/registry/wire"
)

// Daemon is the program around the registry, for the commands that look at it
// and at who is connected. Safe for concurrent use.
type Daemon interface {
	Stats() Stats
	// Connections returns those that have authenticated, the oldest first.
	Connections() []Connection
	// Disconnect ends a connection, and reports false if there is none of this
	// number.
	Disconnect(id uint64, by registry.Caller) bool
	// Sightings returns the agents that were heard of and are not stored yet.
	Sightings() []registry.Sighting
	// Unsee drops those of them that drop takes.
	Unsee(drop func(registry.Sighting) bool)
}

// Stats is what a Daemon counts, since it was started where nothing else is said.
type Stats struct {
	Started   time.Time        `json:"started"`
	Waiting   int              `json:"waiting"` // connections that have not authenticated, now
	Operators int              `json:"operators"`
	Agents    int              `json:"agents"`   // connected now
	Sessions  int              `json:"sessions"` // that run something now
	Files     int              `json:"files"`    // open over SFTP now
	Penalised int              `json:"penalised"`
	Accepted  int64            `json:"accepted"` // connections, whatever became of them
	Refused   map[string]int64 `json:"refused"`  // connections before anybody authenticated, by reason
	Commands  []CommandStats   `json:"commands"`
	Polls     int64            `json:"polls"`
	Reports   int64            `json:"reports"`
	Received  int64            `json:"received_bytes"`
	Sent      int64            `json:"sent_bytes"`
	Errors    int64            `json:"internal_errors"` // each of them is a line in the log
}

// CommandStats counts the calls of one command that ended with one status.
// "sftp" stands for sessions of SFTP, "unknown" for what is no command.
type CommandStats struct {
	Name   string        `json:"command"`
	Status wire.Status   `json:"status"`
	Calls  int64         `json:"calls"`
	Took   time.Duration `json:"-"` // all together
}

// Connection is one that has authenticated. Its texts are clean.
type Connection struct {
	ID       uint64 // unique while the Daemon runs
	Caller   registry.Caller
	Instance string // which agent it is of those with its key, as it says; "": it has not
	Remote   string // with the port
	Since    time.Time
	Idle     time.Duration // since something was done for it
	Received int64         // bytes
	Sent     int64         // bytes
	Doing    []string      // the command line of each session that runs one
}

// errNoDaemon is for front ends without one, such as tests.
var errNoDaemon = &registry.Error{Kind: registry.ErrUsage, Text: "there is no daemon to look at"}

type statsOp struct{}

func (*statsOp) Flags(*pflag.FlagSet) {}

type statsResult struct {
	Schema         Schema `json:"schema"`
	Storing        bool   `json:"storing"` // changes can be stored
	Components     int    `json:"components"`
	Configurations int    `json:"configurations"`
	Blobs          int    `json:"blobs"`
	BlobBytes      int64  `json:"blob_bytes"`
	Damaged        int    `json:"damaged"` // blobs that are not served: see fsck
	Uploads        int    `json:"uploads"`
	Checks         int    `json:"checks"`         // of uploads that go on
	ChecksWaiting  int    `json:"checks_waiting"` // for memory that these have
	Stats
}

func (*statsOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	if s.Daemon == nil {
		return nil, errNoDaemon
	}
	components, err := s.Registry.Components(ctx)
	if err != nil {
		return nil, err
	}
	configurations, err := s.Registry.Configurations(ctx)
	if err != nil {
		return nil, err
	}
	uploads, err := s.Registry.Uploads(ctx)
	if err != nil {
		return nil, err
	}
	layers, err := s.Registry.Layers(ctx, s.Caller.Configs)
	if err != nil {
		return nil, err
	}
	damaged, err := s.Registry.Damaged(ctx)
	if err != nil {
		return nil, err
	}
	out := statsResult{
		Damaged: len(damaged),
		Storing: s.Registry.Storing(ctx) == nil, Components: len(components), Configurations: len(configurations),
		Blobs: len(layers), Uploads: len(uploads), Stats: s.Daemon.Stats(),
	}
	out.Checks, out.ChecksWaiting = s.Registry.Checks()
	for _, l := range layers {
		out.BlobBytes += l.Size
	}
	return out, nil
}

// Text shows a fact on a line. What is zero and seldom otherwise is left out.
func (r statsResult) Text(w io.Writer) error {
	t := table(w)
	row := func(name string, value any) { fmt.Fprintf(t, "%s\t%v\n", name, value) }
	row("started", timeText(r.Started))
	if !r.Storing {
		row("storage", "read-only: nothing can be changed until a restart")
	}
	row("components", r.Components)
	row("configurations", r.Configurations)
	row("blobs", fmt.Sprintf("%d, %d bytes", r.Blobs, r.BlobBytes))
	if r.Damaged > 0 {
		row("damaged", fmt.Sprintf("%d blobs, which are not served: fsck names them", r.Damaged))
	}
	row("uploads", r.Uploads)
	if r.Checks+r.ChecksWaiting > 0 {
		row("checks", fmt.Sprintf("%d of uploads go on, %d wait for memory", r.Checks, r.ChecksWaiting))
	}
	row("connected", fmt.Sprintf("%d agents, %d operators, %d not authenticated", r.Agents, r.Operators, r.Waiting))
	row("running", fmt.Sprintf("%d sessions, %d files open", r.Sessions, r.Files))
	row("connections", r.Accepted)
	for _, reason := range slices.Sorted(maps.Keys(r.Refused)) {
		if n := r.Refused[reason]; n > 0 {
			row("refused: "+reason, n)
		}
	}
	if r.Penalised > 0 {
		row("penalised", fmt.Sprintf("%d addresses", r.Penalised))
	}
	row("polls", r.Polls)
	row("reports", r.Reports)
	row("received", fmt.Sprintf("%d bytes", r.Received))
	row("sent", fmt.Sprintf("%d bytes", r.Sent))
	if r.Errors > 0 {
		row("internal errors", r.Errors)
	}
	for _, c := range r.Commands {
		row(fmt.Sprintf("command %s, status %s", c.Name, c.Status), c.Calls)
	}
	return t.Flush()
}

type sessionsOp struct{}

func (*sessionsOp) Flags(*pflag.FlagSet) {}

type sessionList struct {
	Schema   Schema       `json:"schema"`
	Sessions []sessionRow `json:"sessions"`
}

type sessionRow struct {
	ID       uint64    `json:"id"`
	Role     string    `json:"role"`
	User     string    `json:"user"`
	Comment  string    `json:"comment"`
	Key      string    `json:"key_fingerprint"`
	Host     string    `json:"host,omitempty"` // of an agent, as hosts and status show it
	Instance string    `json:"instance,omitempty"`
	Remote   string    `json:"remote"`
	Since    time.Time `json:"since"`
	Idle     int64     `json:"idle_seconds"`
	Received int64     `json:"received_bytes"`
	Sent     int64     `json:"sent_bytes"`
	Doing    []string  `json:"doing"`
}

func (*sessionsOp) Run(_ context.Context, s *Session, _ []string) (Result, error) {
	if s.Daemon == nil {
		return nil, errNoDaemon
	}
	out := sessionList{Sessions: []sessionRow{}}
	for _, c := range s.Daemon.Connections() {
		row := sessionRow{
			ID: c.ID, Role: c.Caller.Role.String(), User: Clean(c.Caller.User), Comment: Clean(c.Caller.Comment),
			Key: c.Caller.Fingerprint, Remote: Clean(c.Remote), Since: c.Since.UTC().Truncate(time.Second), Idle: int64(c.Idle.Seconds()),
			Received: c.Received, Sent: c.Sent, Doing: append([]string{}, c.Doing...),
		}
		if c.Caller.Role == registry.Agent {
			row.Host, row.Instance = Clean(c.Caller.HostName()), Clean(c.Instance)
		}
		out.Sessions = append(out.Sessions, row)
	}
	return out, nil
}

// Text shows a connection on a line.
func (l sessionList) Text(w io.Writer) error {
	t := table(w)
	for _, c := range l.Sessions {
		who := c.User
		if c.Comment != "" {
			who = c.Comment
		}
		doing := fmt.Sprintf("idle for %d s", c.Idle)
		if len(c.Doing) > 0 {
			doing = strings.Join(c.Doing, "; ")
		}
		if c.Host != "" {
			doing += ", host=" + c.Host
		}
		if c.Instance != "" {
			doing += " instance=" + c.Instance
		}
		fmt.Fprintf(t, "%d\t%s\t%s\t%s\t%s\t%d\t%d\t%s\n", c.ID, c.Role, who, c.Remote, timeText(c.Since), c.Received, c.Sent, doing)
	}
	return t.Flush()
}

type disconnectOp struct{ acting }

func (d *disconnectOp) Run(ctx context.Context, s *Session, args []string) (Result, error) {
	if s.Daemon == nil {
		return nil, errNoDaemon
	}
	if len(args) != 1 {
		return nil, usage("disconnect needs the number of one connection: see sessions")
	}
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return nil, usage("%q is no number of a connection", args[0])
	}
	all := s.Daemon.Connections()
	i := slices.IndexFunc(all, func(c Connection) bool { return c.ID == id })
	if i < 0 {
		return nil, notConnected(id)
	}
	what, err := s.Registry.Did(ctx, d.act(s), args[0], fmt.Sprintf("connection %d of %s from %s is cut", id, Clean(all[i].Caller.String()), Clean(all[i].Remote)))
	if err == nil && !d.dryRun && !s.Daemon.Disconnect(id, s.Caller) {
		err = notConnected(id)
	}
	return d.told(what, err)
}

func notConnected(id uint64) error {
	return &registry.Error{Kind: registry.ErrNotFound, Text: fmt.Sprintf("connection %d not found", id), Hint: "see 'sessions'"}
}

func (*disconnectOp) suggest(_ context.Context, s *Session, _ string) (out []string, err error) {
	if s.Daemon == nil {
		return nil, nil
	}
	for _, c := range s.Daemon.Connections() {
		out = append(out, strconv.FormatUint(c.ID, 10))
	}
	return out, nil
}
