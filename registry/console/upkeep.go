package console

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/spf13/pflag"

	"deploytools/layers/digest"
	"deploytools/registry"
)

// upkeepCommands are the commands about what the registry has stored.
func upkeepCommands() []Command {
	return []Command{
		{
			Name: "gc", Short: "remove what is not needed any more", Role: registry.Operator, Mutates: true,
			Long: `Removes uploads that nobody has written to for a day, versions beyond -maxver that
no configuration has or can be rolled back to, and content that nothing has
referenced for a day. The registry does it by itself every few minutes; its flags
-upload-expiry, -grace and -gc-every set the times. It may run beside uploads,
downloads and every command. While a backup is written, no content goes.

To look only: gc -dry-run -explain.`,
			Examples: []string{"gc -explain"},
			New:      func() Op { return new(gcOp) },
		},
		{
			Name: "fsck", Short: "look whether everything that is recorded is there and right", Role: registry.Operator,
			Long: `Looks at each record, at what records refer to, and at what nothing refers to. With
-read-data it reads all content and compares it with its digest, which takes as long
as reading the disk. Each fault is named with the way out; the exit status is 1 if
there are any. Content that is damaged or missing is not served from then on, until
the same file was uploaded and added again.

The registry reads all content by itself now and then, slowly: see its flag -scrub.
Without a running registry: deploy-registry fsck -dir DIR.`,
			Examples: []string{"fsck", "fsck -read-data"},
			New:      func() Op { return new(fsckOp) },
		},
		{
			Name: "backup", Short: "write a backup of everything to standard output", Role: registry.Admin, Raw: true,
			Long: `One tar archive: all records as they are now, all content that versions need, and
the host keys, so that hosts know the restored registry: keep it as secret as those.
The registry goes on serving. Progress goes to standard error.

  ssh registry backup >FILE
  deploy-registry verify-backup FILE
  deploy-registry restore -dir NEWDIR <FILE

A backup that was cut off has no end, and is refused by both.`,
			Examples: []string{"backup", "backup -without-host-keys"},
			New:      func() Op { return new(backupOp) },
		},
	}
}

type gcOp struct {
	acting
	explain bool
}

func (g *gcOp) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&g.explain, "explain", false, "say of everything that stays why, besides what goes")
	g.acting.Flags(fs)
}

type collection struct {
	Schema Schema    `json:"schema"`
	DryRun bool      `json:"dry_run"`
	Gone   []gcEntry `json:"gone"`
	Kept   []gcEntry `json:"kept,omitempty"`
	Waits  string    `json:"waits,omitempty"` // why content was not looked at
	What   string    `json:"what"`
}

type gcEntry struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	Size int64  `json:"size"`
	Why  string `json:"why"`
}

func (c collection) Text(w io.Writer) error {
	t := ownTable(w)
	verb := "removed"
	if c.DryRun {
		verb = "goes"
		fmt.Fprintf(w, "dry run, nothing was changed: %s\n", c.What)
	} else {
		fmt.Fprintln(w, c.What)
	}
	for _, e := range c.Gone {
		fmt.Fprintf(t, "%s\t%s\t%s\t%d\t%s\t\n", verb, e.Kind, e.Name, e.Size, e.Why)
	}
	for _, e := range c.Kept {
		fmt.Fprintf(t, "stays\t%s\t%s\t%d\t%s\t\n", e.Kind, e.Name, e.Size, e.Why)
	}
	return t.Flush()
}

func (g *gcOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	got, err := s.Registry.CollectFor(ctx, g.act(s), g.explain)
	if err != nil {
		return nil, err
	}
	if got.Waits != "" {
		fmt.Fprintf(s.Stderr, "note: content was not looked at: %s\n", got.Waits)
	}
	return collection{DryRun: g.dryRun, Gone: gcEntries(got.Gone), Kept: gcEntries(got.Kept), Waits: got.Waits, What: got.What}, nil
}

func gcEntries(items []registry.Item) []gcEntry {
	out := []gcEntry{}
	for _, i := range items {
		out = append(out, gcEntry{string(i.Kind), Clean(i.Name), i.Size, Clean(i.Why)})
	}
	return out
}

type fsckOp struct{ readData bool }

func (f *fsckOp) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&f.readData, "read-data", false, "read all content and compare it with its digest")
}

// Checked is what fsck found, as it is shown here and by deploy-registry.
type Checked struct {
	Schema  Schema     `json:"schema"`
	Records int        `json:"records"`
	Blobs   int        `json:"blobs"`
	Bytes   int64      `json:"bytes_read"`
	Faults  []FaultRow `json:"faults"`
	Scrub   *scrubRow  `json:"scrub,omitempty"`
}

// FaultRow is one fault.
type FaultRow struct {
	Kind   string        `json:"kind"`
	Digest digest.Digest `json:"digest,omitzero"`
	Text   string        `json:"text"`
	Do     string        `json:"do"`
}

type scrubRow struct {
	Began time.Time `json:"began"`
	Blobs int       `json:"blobs"`
	Bytes int64     `json:"bytes"`
	Bad   int       `json:"bad"`
	Ended time.Time `json:"last_round_ended,omitzero"`
}

// NewChecked returns c as it is shown.
func NewChecked(c registry.Checked) Checked {
	out := Checked{Records: c.Records, Blobs: c.Blobs, Bytes: c.Bytes, Faults: FaultRows(c.Faults)}
	if s := c.Scrub; !s.Began.IsZero() {
		out.Scrub = &scrubRow{s.Began, s.Blobs, s.Bytes, s.Bad, s.Ended}
	}
	return out
}

// FaultRows returns faults as they are shown.
func FaultRows(faults []registry.Fault) []FaultRow {
	out := []FaultRow{}
	for _, f := range faults {
		out = append(out, FaultRow{string(f.Kind), f.Digest, Clean(f.Text), Clean(f.Do)})
	}
	return out
}

// WriteFaults writes faults with their ways out.
func WriteFaults(w io.Writer, faults []FaultRow) error {
	for _, f := range faults {
		if _, err := fmt.Fprintf(w, "%s: %s\n    to do: %s\n", f.Kind, f.Text, f.Do); err != nil {
			return err
		}
	}
	return nil
}

// Text shows the faults first.
func (c Checked) Text(w io.Writer) error {
	if err := WriteFaults(w, c.Faults); err != nil {
		return err
	}
	fmt.Fprintf(w, "%d records, %d blobs, %d bytes read, %d faults\n", c.Records, c.Blobs, c.Bytes, len(c.Faults))
	if c.Scrub == nil {
		return nil
	}
	_, err := fmt.Fprintf(w, "scrub: %d blobs with %d bytes since %s, %d damaged\n", c.Scrub.Blobs, c.Scrub.Bytes, timeText(c.Scrub.Began), c.Scrub.Bad)
	return err
}

// Outcome is an error if there are faults.
func (c Checked) Outcome() error {
	if n := len(c.Faults); n > 0 {
		return fmt.Errorf("fsck found %d faults", n)
	}
	return nil
}

func (f *fsckOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	got, err := s.Registry.Fsck(ctx, registry.FsckOptions{ReadData: f.readData, Progress: s.progress("reading content")})
	if err != nil {
		return nil, err
	}
	return NewChecked(got), nil
}

// progress tells Stderr about every ten seconds how far something is.
func (s *Session) progress(what string) func(done, total int64) {
	told := time.Now()
	return func(done, total int64) {
		if time.Since(told) < 10*time.Second {
			return
		}
		told = time.Now()
		fmt.Fprintf(s.Stderr, "%s: %d of %d bytes\n", what, done, total)
	}
}

type backupOp struct{ withoutKeys bool }

func (b *backupOp) Flags(fs *pflag.FlagSet) {
	fs.BoolVar(&b.withoutKeys, "without-host-keys", false, "leave the host keys out: hosts will not know the restored registry")
}

func (b *backupOp) Run(ctx context.Context, s *Session, _ []string) (Result, error) {
	return raw(func(w io.Writer) error {
		info, err := s.Registry.Backup(ctx, w, registry.BackupOptions{
			Build: s.Build, WithoutIdentity: b.withoutKeys, Progress: s.progress("backup"),
		})
		if err != nil {
			return fmt.Errorf("backup is not whole: %w", err)
		}
		fmt.Fprintf(s.Stderr, "backup is whole: %d records, %d blobs, %d bytes of content\n", info.Records, info.Blobs, info.Bytes)
		if len(info.Damaged) == 0 {
			return nil
		}
		return &registry.Error{Kind: registry.ErrDamaged, Text: fmt.Sprintf("%d blobs are damaged, and so they are in the backup", len(info.Damaged)),
			Hint: "fsck names them and what to do; then make a new backup"}
	}), nil
}

// raw is a Result that is neither text nor JSON: it writes itself.
type raw func(w io.Writer) error

func (r raw) Text(w io.Writer) error { return r(w) }

// outcome is an optional ability of a Result: an error that is told after the
// result was shown.
type outcome interface{ Outcome() error }
