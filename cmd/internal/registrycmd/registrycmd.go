// Package registrycmd is the program deploy-registry: its flags, and the
// wiring of the domain to its engines and to the SSH server.
package registrycmd

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/spf13/pflag"

	"deploytools/atomic"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/layerflags"
	"deploytools/cmd/internal/ops"
	"deploytools/layers"
	"deploytools/registry"
	"deploytools/registry/sshd"
)

// Main runs deploy-registry with the words after its name and returns its exit
// status.
func Main(ctx context.Context, args []string, o *cli.IO) int {
	return Program().Main(ctx, args, o)
}

// Program returns deploy-registry, for one call of Main and for documents.
func Program() *cli.Program {
	s := &settings{}
	return &cli.Program{
		Name:  "deploy-registry",
		Short: "keep layers and configurations for agents to deploy",
		Long: `Operators reach it with ssh, sftp and scp, or with deployctl; agents by SFTP as
the user deploy-agent. Two files in the format of authorized_keys say who is who,
and what each may do: see docs/keys.md. They are read again when they change.
Everything it keeps lies in one directory. A new directory gets a host key, whose
fingerprint is logged at each start.

TERM and INT end it: commands and transfers that run may finish first. HUP reads
the keys again at once. Sessions of keys that are gone, or that have other rights
now, end; the others go on. A file without any key that can be used changes
nothing.`,
		Examples: []string{
			"deploy-registry -addr localhost:2022 -dir $DIR -opauth $DIR/operator.keys -srvauth $DIR/service.keys",
			"deploy-registry -addr 0.0.0.0:2022 -addr '[::]:2022'",
		},
		Flags:    s.flags,
		Commands: s.commands(),
		Alone:    true,
		Run:      s.run,
	}
}

// settings are the flags.
type settings struct {
	addrs       []string
	dir         string
	operators   string
	agents      string
	revoked     string
	maxVersions int
	idle        time.Duration
	maxUpload   int64
	minFree     int64
	checkMemory int64
	auditKeep   int
	quota       registry.Quota
	upkeep      upkeep
	layers      layers.Options
	limits      limits
	http        string
	addrFile    string
	logFormat   string
	verbose     bool
}

func (s *settings) flags(fs *pflag.FlagSet) {
	fs.StringArrayVar(&s.addrs, "addr", []string{"localhost:2022"}, "`host:port` to listen on; may be repeated")
	fs.StringVar(&s.dir, "dir", "/var/lib/deploy-registry", "`directory` that holds everything")
	fs.StringVar(&s.operators, "opauth", "/etc/deploy-registry/operator.keys", "authorized_keys `file` of the operators, or a directory of *.keys")
	fs.StringVar(&s.agents, "srvauth", "/etc/deploy-registry/service.keys", "authorized_keys `file` of the agents, or a directory of *.keys")
	fs.StringVar(&s.revoked, "revoked", "", "`file` that lists revoked keys and certificates")
	fs.IntVar(&s.maxVersions, "maxver", 10, "`number` of newest versions of a component to keep; 0 keeps all. Versions that a configuration references, now or in its newest 10 revisions, always stay")
	fs.DurationVar(&s.idle, "deadline", 30*time.Minute, "`time` after which an idle connection is closed; 0 is never. What makes progress is never cut")
	fs.Int64Var(&s.maxUpload, "max-upload", 16<<30, "greatest size of one upload, in `bytes`")
	fs.Int64Var(&s.quota.Operator, "operator-quota", 64<<30, "`bytes` that all uploads of one key may take until they are versions")
	fs.Int64Var(&s.quota.Total, "total-quota", 256<<30, "`bytes` that the uploads of all keys may take until they are versions")
	fs.IntVar(&s.quota.Entries, "max-uploads", 1000, "`number` of uploads and directories that one key may have")
	fs.Int64Var(&s.minFree, "min-free", 1<<30, "`bytes` that uploads leave free on the disk")
	fs.Int64Var(&s.checkMemory, "check-memory", 256<<20, "`bytes` of memory that the checks of uploads have together, and those of one key half of it. One more check has what it needs")
	s.upkeep.flags(fs)
	fs.IntVar(&s.auditKeep, "audit-keep", 0, "`number` of newest entries of the audit log to keep; 0 keeps all. One takes about half a kilobyte")
	layerflags.Define(fs, &s.layers)
	s.limits.flags(fs)
	fs.StringVar(&s.http, "http", "", "`address` to show health, version and metrics on, over HTTP without authorization: localhost:port or the path of a socket; empty is nowhere")
	fs.StringVar(&s.addrFile, "addr-file", "", "`file` to write the addresses to that are listened on, for port 0")
	fs.StringVar(&s.logFormat, "log-format", cli.LogText, "`format` of the log: text or json")
	fs.BoolVarP(&s.verbose, "verbose", "v", false, "log more")
	cli.FileFlag(fs, "dir")
	cli.FileFlag(fs, "opauth")
	cli.FileFlag(fs, "srvauth")
	cli.FileFlag(fs, "revoked")
	cli.FileFlag(fs, "addr-file")
}

func (s *settings) run(ctx context.Context, o *cli.IO, _ []string) error {
	level := slog.LevelInfo
	if s.verbose {
		level = slog.LevelDebug
	}
	log, err := cli.NewLogger(o, s.logFormat, level)
	if err != nil {
		return err
	}
	if err := s.check(); err != nil {
		return err
	}
	hangups := make(chan os.Signal, 1) // from now on HUP does not end us
	signal.Notify(hangups, syscall.SIGHUP)
	defer signal.Stop(hangups)
	access := newAccess(s, log)
	if err := access.load(); err != nil {
		return err
	}
	reg, closeStore, err := s.open(ctx, log)
	if err != nil {
		return cli.Unwritable(err)
	}
	defer closeStore()
	hostKeys, err := sshd.LoadHostKeys(s.dir, log)
	if err != nil {
		return cli.Unwritable(err)
	}
	server, err := sshd.New(sshd.Options{
		Registry: reg, HostKeys: hostKeys, Log: log, Build: cli.ReadBuild(),
		Operators: access.operators.Current, Agents: access.agents.Current, Revoked: access.revoked.Current,
		Limits: s.limits.of(), Handshake: s.limits.handshake, Idle: s.idleLimit(), Drain: drain,
	})
	if err != nil {
		return err
	}
	listeners, err := s.listen(ctx, log)
	if err != nil {
		return err
	}
	closePages, err := s.showPages(ctx, server, reg, log)
	if err != nil {
		for _, l := range listeners {
			l.Close()
		}
		return err
	}
	defer closePages()
	reloads, stop := context.WithCancel(ctx)
	var reloading sync.WaitGroup
	reloading.Go(func() { access.watch(reloads, hangups, server.Recheck) })
	defer reloading.Wait()
	defer stop()
	return s.serve(ctx, server, listeners, reg, log)
}

func (s *settings) check() error {
	for _, addr := range s.addrs {
		if _, port, err := net.SplitHostPort(addr); err != nil || !isPort(port) {
			return cli.Usage("-addr %q: should be host:port", addr)
		}
	}
	switch {
	case s.maxVersions < 0:
		return cli.Usage("-maxver cannot be negative")
	case s.idle < 0:
		return cli.Usage("-deadline cannot be negative")
	case s.maxUpload <= 0:
		return cli.Usage("-max-upload should be positive")
	case s.auditKeep < 0:
		return cli.Usage("-audit-keep cannot be negative")
	case s.minFree <= 0:
		return cli.Usage("-min-free should be positive")
	case s.checkMemory <= 0:
		return cli.Usage("-check-memory should be positive")
	case s.quota.Operator <= 0 || s.quota.Total <= 0 || s.quota.Entries <= 0:
		return cli.Usage("-operator-quota, -total-quota and -max-uploads should be positive")
	}
	if err := s.upkeep.check(); err != nil {
		return err
	}
	if s.http != "" {
		if err := ops.CheckLocal(s.http); err != nil {
			return cli.Usage("-http %s: %w", s.http, err)
		}
	}
	return s.limits.check()
}

// isPort tells a number, or a word that may be the name of a service, from a
// number that is no port.
func isPort(port string) bool {
	n, err := strconv.Atoi(port)
	return port != "" && (err != nil || n >= 0 && n <= 65535)
}

// drain is how long what runs may go on after TERM: less than TimeoutStopSec of
// the unit.
const drain = 4 * time.Minute

// idleLimit is the flag as sshd has it, where zero is the default.
func (s *settings) idleLimit() time.Duration {
	if s.idle == 0 {
		return -1
	}
	return s.idle
}

// checkFunc lets the domain, which cannot read archives, check one. The domain
// has hashed it by itself.
func checkFunc(o layers.Options) registry.CheckFunc {
	o.Digests = layers.FileDigests
	return func(ctx context.Context, r io.Reader, room func(bytes int64) error) (registry.Archive, error) {
		o := o
		o.Room = room
		info, err := layers.Check(ctx, "upload", r, o)
		if info == nil {
			return registry.Archive{}, err
		}
		a := registry.Archive{
			Size: info.Size, Unpacked: info.Unpacked, Entries: info.Entries,
			Manifest: info.Manifest, Warnings: info.Warnings,
		}
		if refusal, ok := errors.AsType[*layers.Refusal](err); ok {
			// Whoever adds the version names the layer.
			text := strings.TrimPrefix(refusal.Error(), "layer upload: ")
			err = &registry.Error{Kind: registry.ErrRefused, Text: text}
		}
		return a, err
	}
}

// listen opens every address, and writes them down if that is wanted.
func (s *settings) listen(ctx context.Context, log *slog.Logger) ([]net.Listener, error) {
	var all []net.Listener
	var addrs strings.Builder
	fail := func(err error) ([]net.Listener, error) {
		for _, l := range all {
			l.Close()
		}
		return nil, err
	}
	for _, addr := range s.addrs {
		l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
		if err != nil {
			return fail(cli.WithHint(fmt.Errorf("cannot listen on %s: %w", addr, err), "is another registry running? choose another -addr"))
		}
		all = append(all, l)
		log.Info("listening", "remote", l.Addr().String())
		fmt.Fprintln(&addrs, l.Addr())
	}
	if s.addrFile != "" {
		if err := atomic.WriteFile(s.addrFile, []byte(addrs.String()), 0o644); err != nil {
			return fail(err)
		}
	}
	return all, nil
}

// serve runs the server, and the upkeep beside it, until ctx ends.
func (s *settings) serve(ctx context.Context, server *sshd.Server, listeners []net.Listener, reg *registry.Registry, log *slog.Logger) error {
	ops.Ready()
	ops.Status("serving " + strings.Join(s.addrs, " "))
	side, stop := context.WithCancel(ctx)
	swept := make(chan struct{})
	go func() {
		defer close(swept)
		s.upkeep.run(side, reg, log)
	}()
	go ops.Watchdog(side, func() bool { return storing(side, reg, log) })
	err := server.Serve(ctx, listeners...)
	ops.Stopping()
	stop()
	<-swept
	log.Info("stopped")
	return err
}

// storing reports whether changes can be stored. Where a write has failed they
// cannot until a restart, which looks at the whole database again: the service
// manager makes it when it is told nothing any more.
func storing(ctx context.Context, reg *registry.Registry, log *slog.Logger) bool {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	err := reg.Storing(ctx)
	if err != nil {
		log.Error("changes cannot be stored", "error", err)
		ops.Status("changes cannot be stored: " + err.Error())
	}
	return err == nil
}
