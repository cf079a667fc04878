package cmd_test

import (
	"errors"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"syscall"

	"github.com/rogpeppe/go-internal/testscript"

	"deploytools/layers/digest"
)

// scriptCommands are the commands that scripts have besides testscript's own.
var scriptCommands = map[string]func(*testscript.TestScript, bool, []string){
	"manager":     managerCommand,
	"registry":    registryCommand,
	"agent":       agentCommand,
	"exits":       exitsCommand,
	"await":       awaitCommand,
	"until":       untilCommand,
	"hash":        hashCommand,
	"freeaddr":    freeaddrCommand,
	"archive":     archiveCommand,
	"layer":       layerCommand,
	"certificate": certificateCommand,
	"upstreamdb":  upstreamdbCommand,
}

func siteOf(ts *testscript.TestScript) *site { return ts.Value(siteKey{}).(*site) }

// registryCommand is
//
//	registry start [FLAG...]   and wait until it listens; sets ADDR, HOST, PORT and HOSTFP
//	registry stop|kill|hup
func registryCommand(ts *testscript.TestScript, neg bool, args []string) {
	s := siteOf(ts)
	if len(args) == 0 || args[0] != "start" {
		control(ts, neg, "registry", args)
		return
	}
	ts.Check(s.startRegistry(environment(ts), args[1:]...))
	host, port, _ := strings.Cut(s.addr, ":")
	for name, value := range map[string]string{
		"ADDR": s.addr, "DEPLOY_REGISTRY_ADDR": s.addr, "HOST": host, "PORT": port, "DEPLOYCTL_ADDR": s.addr, "DEPLOY_AGENT_ADDR": s.addr,
		"HOSTFP": regexp.MustCompile(`SHA256:[A-Za-z0-9+/]*`).FindString(s.text("registry.log")),
	} {
		ts.Setenv(name, value)
	}
}

// agentCommand is
//
//	agent start [FLAG...]
//	agent stop|kill|hup
func agentCommand(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) > 0 && args[0] == "start" {
		ts.Check(siteOf(ts).start("agent", "deploy-agent", environment(ts), args[1:]...))
		return
	}
	control(ts, neg, "agent", args)
}

// environment returns the variables of the script.
func environment(ts *testscript.TestScript) []string {
	ts.Check(ts.Exec("env", "-0"))
	return strings.Split(strings.TrimSuffix(ts.ReadFile("stdout"), "\x00"), "\x00")
}

func control(ts *testscript.TestScript, neg bool, name string, args []string) {
	s := siteOf(ts)
	d := s.running[name]
	if neg || len(args) != 1 || d == nil {
		ts.Fatalf("usage: %s start [FLAG...]|stop|kill|hup, of one that runs", name)
	}
	switch args[0] {
	case "hup":
		ts.Check(d.cmd.Process.Signal(syscall.SIGHUP))
		return
	case "stop":
		if err := d.stop(); err != nil {
			ts.Fatalf("%s: %v: %s", name, err, s.tail(name+".log"))
		}
	case "kill":
		s.kill(name)
		return
	default:
		ts.Fatalf("%s %s: unknown", name, args[0])
	}
	delete(s.running, name)
}

// exitsCommand is
//
//	exits STATUS PROGRAM [ARG...]
func exitsCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits STATUS PROGRAM [ARG...]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	err = ts.Exec(args[1], args[2:]...)
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		got = exit.ExitCode()
	} else {
		ts.Check(err)
	}
	if got != want {
		ts.Fatalf("exit status %d, want %d", got, want)
	}
}

// awaitCommand is
//
//	await FILE REGEXP
//
// and waits until there is a match behind the one of the last await of FILE.
func awaitCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: await FILE REGEXP")
	}
	s, file := siteOf(ts), ts.MkAbs(args[0])
	re, err := regexp.Compile("(?m)" + args[1])
	ts.Check(err)
	at, err := awaitMatch(file, re, s.seen[file])
	if err != nil {
		ts.Fatalf("%s: %q: %v: %s", args[0], args[1], err, s.tail(args[0]))
	}
	s.seen[file] = at
}

// untilCommand is
//
//	until PROGRAM [ARG...]
//
// and runs it again and again until it succeeds.
func untilCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) == 0 {
		ts.Fatalf("usage: until PROGRAM [ARG...]")
	}
	s := siteOf(ts)
	err := poll(func() (bool, error) { return ts.Exec(args[0], args[1:]...) == nil, nil })
	if err != nil {
		ts.Fatalf("%s: %v\nregistry.log: %s\nagent.log: %s", args, err, s.tail("registry.log"), s.tail("agent.log"))
	}
}

// hashCommand is
//
//	hash VARIABLE FILE
func hashCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hash VARIABLE FILE")
	}
	ts.Setenv(args[0], digest.Of([]byte(ts.ReadFile(args[1]))).String())
}

// freeaddrCommand is
//
//	freeaddr VARIABLE
//
// and sets it to a loopback address with a port that nobody else takes.
func freeaddrCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: freeaddr VARIABLE")
	}
	addr, err := freeAddr()
	ts.Check(err)
	ts.Setenv(args[0], addr)
}
