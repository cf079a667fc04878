package agentcmd

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"deploytools/agent"
	"deploytools/cmd/internal/cli"
	"deploytools/cmd/internal/ops"
	"deploytools/registry/wire"
)

// goodBytes are enough for most roots.
const goodBytes = 1 << 30

// lookTimeout bounds each question to the registry or the service manager.
const lookTimeout = 20 * time.Second

// registry looks at the key, at the registry, and at what it shows to the key.
func (d *diagnosis) registry(ctx context.Context, s *settings, all []agent.Options, o *cli.IO) {
	if !d.key(s) {
		return
	}
	log, err := s.logger(&cli.IO{Stdout: o.Stdout, Stderr: new(bytes.Buffer), Env: o.Env})
	if err != nil {
		d.Fail("settings", "", "%v", err)
		return
	}
	c, err := s.connect(log)
	if err != nil {
		d.Fail("registry", cli.HintOf(err), "%v", err)
		return
	}
	defer c.Close()
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	if err := c.Connect(asking); err != nil {
		next := cli.HintOf(explain(err))
		if errors.Is(err, wire.ErrUntrusted) && next == "" {
			next = "compare fingerprints with the registry's log, then give -fp; and see that its service.keys has this key"
		}
		d.Fail("registry", next, "%v", err)
		return
	}
	d.OK("registry", "%s answers, and takes the key", s.addr)
	names := make([]string, len(all))
	for i, one := range all {
		names[i] = one.Name
	}
	states, errs := c.PollAll(asking, names)
	for i, name := range names {
		switch {
		case errs[i] != nil:
			d.Fail(name, cli.HintOf(explain(errs[i])), "%v", errs[i])
		case states[i].Revision == 0 && states[i].Digest.IsZero():
			d.Warn(name, "deployctl addconf -name "+name+" ..., or a configs= that names it for this key",
				"the registry shows no such configuration to this key")
		default:
			d.OK(name, "the registry has revision %d", states[i].Revision)
		}
	}
}

// key looks at the private key, and reports whether it can be read.
func (d *diagnosis) key(s *settings) bool {
	info, err := os.Stat(s.key)
	if errors.Is(err, fs.ErrNotExist) {
		next := fmt.Sprintf("give -key FILE, or where this host has no key yet: ssh-keygen -t ed25519 -N '' -f %s, and put %s.pub into the registry's service.keys", s.key, s.key)
		if !s.given("key") {
			next = "give -key FILE, the key of the agent: without it that is looked for where you are"
		}
		d.Fail("key", next, "%v", err)
		return false
	}
	if err != nil {
		d.Fail("key", "run this as the agent's user", "%v", err)
		return false
	}
	f, err := os.Open(s.key)
	if err != nil {
		d.Fail("key", "give it to the user that runs the agent", "%v", err)
		return false
	}
	f.Close()
	if info.Mode().Perm()&0o077 != 0 {
		d.Warn("key", "chmod 600 "+s.key, "%s: others can reach it (mode %04o)", s.key, info.Mode().Perm())
	} else {
		d.OK("key", "%s", s.key)
	}
	return true
}

// host looks at what one configuration needs here.
func (d *diagnosis) host(o agent.Options) {
	d.record(o)
	d.Disk(o.Name, o.Dir, call("gc -explain", o.Dir)+" shows what the agent keeps", goodBytes)
}

// settled looks at what the settings of one configuration name.
func (d *diagnosis) settled(s *settings, o agent.Options) {
	for _, p := range []struct{ flag, path string }{
		{"-script", o.Hook.Script}, {"-check-script", o.Hook.CheckScript}, {"-remove-script", o.Hook.RemoveScript},
	} {
		if p.path == "" {
			continue
		}
		if err := agent.CheckProgram(p.path, o.Hook.User); err != nil {
			next := "mend it: nothing is deployed until then"
			if p.path == s.set.Lookup("script").DefValue {
				next = "give -script: without it that is looked for where you are"
			}
			d.Fail(o.Name, next, "%s %v", p.flag, err)
			continue
		}
		d.OK(o.Name, "%s %s", p.flag, p.path)
	}
	if path := o.Hook.NotifyScript; path != "" {
		if err := agent.CheckProgram(path, nil); err != nil {
			d.Warn(o.Name, notifyHint, "-notify %v", err)
		} else {
			d.OK(o.Name, "-notify %s", path)
		}
	}
	if n := len(o.Verify.Checks); n == 0 && !o.Checks.HostOnly {
		d.Warn(o.Name, "give -verify here, or to changeconf at the registry: a version that does not work is found out and taken back",
			"no checks: of this host; those of the revision and of the root count alone")
	} else if n == 0 {
		d.Warn(o.Name, "give -verify: a version that does not work is found out and taken back", "no checks: what is deployed is never verified")
	} else {
		d.OK(o.Name, "-verify: checks: %d", n)
	}
	for _, m := range o.Publish.Files {
		d.destination(o.Name, m)
	}
	if o.StateFile != "" {
		d.In("-state", o.StateFile)
	}
}

func (d *diagnosis) record(o agent.Options) {
	a, err := agent.Look(agent.Options{Dir: o.Dir, Name: o.Name})
	switch {
	case errors.Is(err, agent.ErrNothing):
		d.OK(o.Name, "nothing was deployed here yet")
	case errors.Is(err, fs.ErrPermission):
		d.Fail(o.Name, "run this as root, or as the agent's user", "%v", err)
	case err != nil:
		d.Fail(o.Name, "name the right -dir; a damaged record is made anew when the agent starts", "%v", err)
	case a.Record().Removing != nil:
		d.Fail(o.Name, removingHint(callIn(o.Dir)), "%v", agent.ErrRemoving)
	case a.Record().State == agent.Broken:
		d.Fail(o.Name, call("why", o.Dir)+" says more", "neither the new nor the old version works")
	default:
		d.OK(o.Name, "on record: %s", a.Record().State)
	}
}

// unit looks at how systemd would run the agent, where there is one.
func (d *diagnosis) unit(ctx context.Context, name string) {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return
	}
	asking, cancel := context.WithTimeout(ctx, lookTimeout)
	defer cancel()
	for _, unit := range []string{"deploy-agent@" + name + ".service", "deploy-agent.service"} {
		out, err := exec.CommandContext(asking, "systemctl", "show", "-p", "LoadState,ActiveState,KillMode", unit).Output()
		if err != nil || !strings.Contains(string(out), "LoadState=loaded") {
			continue
		}
		if !strings.Contains(string(out), "KillMode=process") {
			d.Fail(name, "set KillMode=process, as deploy/deploy-agent@.service does", "%s: a restart of the agent would end hooks and what they started", unit)
		} else {
			d.OK(name, "%s", unit)
		}
	}
}

// notifyHint says what to do about a program of -notify that cannot be started.
const notifyHint = "mend it: nobody is told until then"

// http looks at what -http says; an agent that runs listens there itself.
func (d *diagnosis) http(ctx context.Context, addr string, runs bool) {
	if addr == "" {
		return
	}
	if err := ops.CheckLocal(addr); err != nil {
		d.Fail("-http", "give localhost:port or the path of a socket: the agent does not start with this", "%s: %v", addr, err)
		return
	}
	if strings.HasPrefix(addr, "/") && len(addr) > len(unix.RawSockaddrUnix{}.Path)-1 {
		d.Fail("-http", "choose a shorter path", "%s: a socket's path has at most %d bytes", addr, len(unix.RawSockaddrUnix{}.Path)-1)
	} else if !runs {
		d.HTTP(ctx, addr)
	}
}
