package cmd_test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// handshake is more than what a connection costs besides the layer, in bytes.
const handshake = 12 << 10

// badLine is a line with an agent at its end.
type badLine struct {
	name string
	*line
	size    int  // of the layer
	swallow bool // everything, in the middle of the layer

	h   *host
	cmd *exec.Cmd
}

// Over each bad line the agent gets what is wanted onto the host, once: it goes
// on where it was cut, and the hook does not hear of it.
func TestAgentOverBadLines(t *testing.T) {
	t.Parallel()
	s := startSite(t)
	all := []*badLine{
		{name: "cut-after-every-64-KiB", line: &line{each: 64 << 10}, size: 1 << 20},
		{name: "cut-after-every-MiB", line: &line{each: 1 << 20}, size: 8 << 20},
		{name: "reset-after-every-MiB", line: &line{each: 1 << 20, reset: true}, size: 8 << 20},
		{name: "2-s-round-trip", line: &line{oneWay: time.Second}, size: 1 << 20},
		{name: "1-KiB-a-second", line: &line{rate: 1 << 10}, size: 20 << 10},
		{name: "black-hole", line: &line{rate: 100 << 10}, size: 1 << 20, swallow: true},
	}
	var wg sync.WaitGroup
	for _, l := range all {
		l.set(t, s)
		wg.Go(func() { // beside each other: they wait most of the time
			if err := l.deploys(); err != nil {
				t.Errorf("%s: %v\n%s", l.name, err, l.h.text("log"))
			}
		})
	}
	wg.Wait()
}

// set makes the layer, and the agent's host.
func (l *badLine) set(t *testing.T, s *site) {
	t.Helper()
	noise := make([]byte, l.size)
	rand.NewChaCha8([32]byte{byte(l.size)}).Read(noise)
	s.publish(t, l.name, "v1", map[string]string{"noise": string(noise), "version": "v1"})
	s.deployctl(t, "addconf", "-name", l.name, "-layer", l.name+":v1")
	l.h = &host{s: s, dir: t.TempDir(), name: l.name}
	l.h.write(t)
	// The registry's key is good for the address of the line, too.
	known := l.h.dir + "/known_hosts"
	_, key, _ := strings.Cut(s.text("home/.ssh/known_hosts"), " ")
	if err := os.WriteFile(known, []byte("* "+key), 0o600); err != nil {
		t.Fatal(err)
	}
	l.cmd = l.h.agent("")
	l.cmd.Args = append(l.cmd.Args, "-once=false", "-poll", "1s", "-known-hosts", known, "-addr", l.to(t, s.addr))
}

// deploys runs the agent until the layer is live, and returns what is wrong.
func (l *badLine) deploys() error {
	d, err := startDaemon(l.h.dir, l.cmd.Env, filepath.Join(l.h.dir, "log"), l.cmd.Args[0], l.cmd.Args[1:]...)
	if err != nil {
		return err
	}
	defer d.kill()
	if l.swallow {
		if err := l.throughHole(); err != nil {
			return err
		}
	}
	for wait := time.Now(); !strings.Contains(l.h.text("log"), `msg="configuration deployed"`); time.Sleep(50 * time.Millisecond) {
		if time.Since(wait) > 2*patience || d.ended() {
			return fmt.Errorf("nothing was deployed")
		}
	}
	if got := l.h.text("calls"); got != "deploy v1\n" {
		return fmt.Errorf("hooks run: %q", got)
	}
	// What came twice, beside what each connection costs by itself. What a reset
	// finds in the buffers of the kernel is lost.
	conns := l.conns.Load()
	if most := int64(l.size) + conns*(64<<10+handshake); l.each > 64<<10 && !l.reset && l.came.Load() > most {
		return fmt.Errorf("%d bytes came over %d connections, want at most %d", l.came.Load(), conns, most)
	}
	if l.each == 0 && !l.swallow && conns > 2 {
		return fmt.Errorf("%d connections, want one or two", conns)
	}
	return nil
}

// throughHole has the line swallow everything. The agent notices within a minute
// that nothing comes any more.
func (l *badLine) throughHole() error {
	if err := poll(func() (bool, error) { return l.came.Load() > 200<<10, nil }); err != nil {
		return err
	}
	l.hole.Store(true)
	defer l.hole.Store(false)
	err := poll(func() (bool, error) { return strings.Contains(l.h.text("log"), "no byte moved for"), nil })
	if err != nil {
		return fmt.Errorf("the black hole was not noticed: %w", err)
	}
	return nil
}

// text returns what a file of the host holds; nothing where there is none.
func (h *host) text(name string) string {
	b, err := os.ReadFile(filepath.Join(h.dir, name))
	if err != nil && !os.IsNotExist(err) {
		return fmt.Sprint(err)
	}
	return string(b)
}
