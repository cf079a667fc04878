package registrycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/crypto/ssh"

	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/doctor"
	"deploytools/registry/boltmeta"
	"deploytools/registry/sshd"
)

func (s *settings) doctorCommand() cli.Command {
	return cli.Command{
		Name: "doctor", Short: "look for what commonly goes wrong on this host",
		Long: `A line for each thing that it looks at: ok, warn, or FAIL with what to do. The settings
are those before the command, and the variables of the environment. A registry may run
meanwhile: then it is asked for its host key. It writes nothing but for a moment below -dir.
Run it as the user that the registry runs as; what others cannot read is a fault otherwise.

The exit status is 1 when something fails.`,
		Examples: []string{
			"deploy-registry doctor",
			"deploy-registry -addr localhost:2022 -dir $DIR -opauth $DIR/operator.keys -srvauth $DIR/service.keys doctor -json",
		},
		New: func() cli.Op { return &doctorOp{s: s} },
	}
}

// doctorOp is the command doctor.
type doctorOp struct {
	s *settings
	dirFlag
	json bool
}

func (v *doctorOp) Flags(fs *pflag.FlagSet) {
	v.dirFlag.flags(fs, "`directory` to look at")
	fs.BoolVar(&v.json, "json", false, "print one JSON object")
}

func (v *doctorOp) Run(ctx context.Context, o *cli.IO, _ []string) error {
	v.set(v.s)
	d := &diagnosis{s: v.s}
	if err := v.s.check(); err != nil {
		d.Fail("settings", cli.HintOf(err), "%v", err)
	} else {
		d.OK("settings", "directory %s, addresses %s", v.s.dir, strings.Join(v.s.addrs, " "))
	}
	d.Clock("so that the audit log and expiry times of keys are right")
	d.directory()
	d.access()
	own, known := d.hostKeys()
	var free []io.Closer // until all are tried: a start wants them together
	runs := false
	for _, addr := range v.s.addrs {
		l, answered := d.address(ctx, addr, own, known)
		if l != nil {
			free = append(free, l)
		}
		runs = runs || answered
	}
	if v.s.http != "" && !runs { // a registry that runs has it
		d.HTTP(ctx, v.s.http)
	}
	for _, l := range free {
		l.Close()
	}
	if v.s.addrFile != "" {
		d.In("-addr-file", v.s.addrFile)
	}
	return d.Show(o, v.json)
}

// diagnosis is the result of the command.
type diagnosis struct {
	doctor.Diagnosis
	s *settings
}

// directory looks at what lies in the directory, and at its disk.
func (d *diagnosis) directory() {
	dir := d.s.dir
	d.Disk("directory", dir, "deploy-registry -maxver and the console's gc say what is kept", max(1<<30, d.s.minFree))
	info, err := os.Stat(dir)
	if err != nil {
		if errors.Is(err, fs.ErrNotExist) {
			d.OK("directory", "%s is made at the first start", dir)
		}
		return // else it has been said
	}
	if info.Mode().Perm()&0o077 != 0 {
		d.Warn("directory", "chmod 700 "+dir, "%s: others can reach it (mode %04o)", dir, info.Mode().Perm())
	}
	if _, err := os.Lstat(filepath.Join(dir, unfinished)); err == nil {
		d.Fail("directory", fmt.Sprintf("run it again: deploy-registry restore -dir %s <BACKUP", dir), "%s holds a part of a backup: a restore was not finished", dir)
	}
	switch err := boltmeta.Inspect(filepath.Join(dir, stateFile), boltmeta.Options{Timeout: lockTimeout}); {
	case err == nil:
		d.OK("directory", "%s holds a registry; fsck looks into it", dir)
	case errors.Is(err, boltmeta.ErrInUse):
		d.OK("directory", "%s holds a registry, which runs", dir)
	case errors.Is(err, boltmeta.ErrUpstream):
		d.OK("directory", "%s holds a registry of the archived tool set: the first start imports it", dir)
	case errors.Is(err, fs.ErrNotExist):
		d.OK("directory", "%s holds no registry yet: the first start makes one", dir)
	case errors.Is(err, fs.ErrPermission):
		d.Fail("directory", "run this as the registry's user", "%v", err)
	default:
		d.Fail("directory", cli.HintOf(d.s.explain(err)), "%v", err)
	}
	for _, name := range []string{"files", uploadsDir} {
		if info, err := os.Stat(filepath.Join(dir, name)); err == nil && !info.IsDir() {
			d.Fail("directory", "move it away", "%s is no directory", filepath.Join(dir, name))
		}
	}
	if _, err := os.Lstat(filepath.Join(dir, stateFile+boltmeta.KeptSuffix)); err == nil {
		d.OK("directory", "the database of the archived deploy-registry is kept in %s", stateFile+boltmeta.KeptSuffix)
	}
}

// access looks at the files of keys, as a start does.
func (d *diagnosis) access() {
	a := newAccess(d.s, slog.New(keysLog{d}))
	for _, l := range []*logins{&a.operators, &a.agents} {
		if _, err := l.load(a.log, false); err != nil {
			d.Fail(l.flag, cli.HintOf(err), "%v", err)
			continue
		}
		names, _ := l.list() // no error: they were read
		for _, name := range slices.Compact(append([]string{l.path}, names...)) {
			if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o022 != 0 {
				d.Warn(l.flag, "chmod go-w "+name, "%s: others can write to it (mode %04o), and let in whom they like", name, info.Mode().Perm())
			}
		}
		if n := l.Current().Len(); n == 0 {
			d.Fail(l.flag, "put a public key into it: see docs/keys.md", "%s: no key can be used", l.path)
		} else {
			d.OK(l.flag, "%s, keys: %d", l.path, n)
		}
	}
	if d.s.revoked == "" {
		return
	}
	if _, err := a.revoked.load(false); err != nil {
		d.Fail("-revoked", cli.HintOf(err), "%v", err)
		return
	}
	d.OK("-revoked", "%s, revoked: %d", d.s.revoked, a.revoked.Current().Len())
}

// keysLog makes looks of what reading keys logs.
type keysLog struct{ d *diagnosis }

// Enabled leaves out what is no trouble.
func (keysLog) Enabled(_ context.Context, level slog.Level) bool { return level >= slog.LevelWarn }

// WithAttrs changes nothing: nobody gives any.
func (k keysLog) WithAttrs([]slog.Attr) slog.Handler { return k }

// WithGroup changes nothing: nobody makes groups.
func (k keysLog) WithGroup(string) slog.Handler { return k }

// Handle has the record be a warning: the keys that can be used count all the same.
func (k keysLog) Handle(_ context.Context, r slog.Record) error {
	text := r.Message
	r.Attrs(func(a slog.Attr) bool {
		text += ": " + a.Value.String()
		return true
	})
	k.d.Warn("keys", "see docs/keys.md for what a line may say", "%s", text)
	return nil
}

// hostKeys looks at the host keys, and returns their fingerprints; known is false where
// they cannot be read. It makes none.
func (d *diagnosis) hostKeys() (fingerprints []string, known bool) {
	names, err := filepath.Glob(filepath.Join(d.s.dir, hostKeys))
	if err != nil || !slices.Contains(names, filepath.Join(d.s.dir, "host_key")) {
		d.OK("host key", "the first start makes one, and logs its fingerprint")
		return nil, true
	}
	for _, name := range names {
		if info, err := os.Stat(name); err == nil && info.Mode().Perm()&0o077 != 0 && !strings.HasSuffix(name, ".pub") {
			d.Warn("host key", "chmod 600 "+name, "%s: others can reach it (mode %04o)", name, info.Mode().Perm())
		}
	}
	signers, err := sshd.LoadHostKeys(d.s.dir, slog.New(slog.DiscardHandler))
	if err != nil {
		d.Fail("host key", "run this as the registry's user; or mend what it says", "%v", err)
		return nil, false
	}
	for _, k := range signers {
		fingerprints = append(fingerprints, ssh.FingerprintSHA256(k.PublicKey()))
	}
	d.OK("host key", "%s", strings.Join(fingerprints, " "))
	return fingerprints, true
}

// lockTimeout bounds the wait for a database that is in use: a registry that runs keeps it.
const lockTimeout = 200 * time.Millisecond

// answerTimeout bounds the wait for who listens on an address.
const answerTimeout = 10 * time.Second

// address looks who listens on it, or whether that is possible: then it listens itself. It
// reports whether the registry of the directory answers there.
func (d *diagnosis) address(ctx context.Context, addr string, own []string, known bool) (free io.Closer, answered bool) {
	ctx, cancel := context.WithTimeout(ctx, answerTimeout)
	defer cancel()
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err == nil {
		if _, port, _ := net.SplitHostPort(addr); port == "0" {
			d.OK("address", "%s is whichever port is free then", addr)
		} else {
			d.OK("address", "%s is free: no registry runs there", addr)
		}
		return l, false
	}
	if _, _, e := net.SplitHostPort(addr); e != nil {
		d.Fail("address", "it is HOST:PORT, or [::1]:2022 for IPv6", "%v", err)
		return nil, false
	}
	conn, e := new(net.Dialer).DialContext(ctx, "tcp", addr)
	if e != nil {
		d.Fail("address", "choose another -addr, or give the right: ports below 1024 are root's", "cannot listen on %s: %v", addr, err)
		return nil, false
	}
	defer conn.Close()
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	seen := ""
	_, _, _, err = ssh.NewClientConn(conn, addr, &ssh.ClientConfig{HostKeyCallback: func(_ string, _ net.Addr, key ssh.PublicKey) error {
		seen = ssh.FingerprintSHA256(key)
		return errSeen
	}})
	switch {
	case seen == "":
		d.Fail("address", "find out what it is (ss -ltnp), and end it or choose another -addr", "%s: what listens there does not speak SSH: %v", addr, err)
	case !known:
		d.Warn("address", "run this as the registry's user", "%s: whether what listens there is the registry of this directory cannot be told", addr)
	case !slices.Contains(own, seen):
		d.Fail("address", "find out what it is (ss -ltnp); another -dir, or another -addr", "%s: what listens there has the host key %s, which is none of this directory's", addr, seen)
	default:
		d.OK("address", "%s: the registry of this directory answers there", addr)
		return nil, true
	}
	return nil, false
}

// errSeen ends a connection of which nothing but the host key was wanted.
var errSeen = errors.New("seen")
