package cmd_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// unitManager starts one service, and starts it again, as systemd does by our unit:
// Type=notify, Restart=on-failure, KillMode=process, with shorter times. It takes
// the order to restart on a socket, and answers when the service is ready or is not.
type unitManager struct {
	service func() *exec.Cmd // what ExecStart says, with the log for its output
	post    func() *exec.Cmd // what ExecStopPost says; nil: nothing
	dir     string
	orders  chan chan error
	stopped chan struct{}
	ended   chan struct{}

	// Of the goroutine that manages.
	main  *exec.Cmd // nil: none
	exit  chan error
	again <-chan time.Time
}

const (
	startLimit   = 3 * time.Second        // TimeoutStartSec
	restartAfter = 200 * time.Millisecond // RestartSec
)

// manage starts the service and returns when it is ready.
func manage(t *testing.T, service func() *exec.Cmd) *unitManager {
	t.Helper()
	dir, err := os.MkdirTemp("", "unit-") // a socket's name has to be short
	if err != nil {
		t.Fatal(err)
	}
	m := newUnitManager(dir, service)
	l, err := net.Listen("unix", m.socket())
	if err != nil {
		t.Fatal(err)
	}
	go m.listen(l)
	if err := m.start(); err != nil {
		t.Fatalf("the service does not start: %v", err)
	}
	go m.run()
	t.Cleanup(func() {
		close(m.stopped)
		<-m.ended
		l.Close()
		os.RemoveAll(dir)
	})
	return m
}

func newUnitManager(dir string, service func() *exec.Cmd) *unitManager {
	return &unitManager{service: service, dir: dir, orders: make(chan chan error), stopped: make(chan struct{}), ended: make(chan struct{})}
}

// unitd is the program of that name: a manager of one unit until TERM, with its
// socket in DIR. ExecStart is PROGRAM ARGS..., ExecStopPost is LAST ARGS... guard.
//
//	unitd DIR PROGRAM LAST ARGS...
func unitd() {
	command := func(words ...string) *exec.Cmd {
		cmd := exec.Command(words[0], words[1:]...)
		cmd.Env, cmd.Stdout, cmd.Stderr = os.Environ(), os.Stdout, os.Stderr
		return cmd
	}
	terms := make(chan os.Signal, 1)
	signal.Notify(terms, syscall.SIGTERM)
	args := os.Args[4:]
	m := newUnitManager(os.Args[1], func() *exec.Cmd { return command(append([]string{os.Args[2]}, args...)...) })
	m.post = func() *exec.Cmd { return command(slices.Concat([]string{os.Args[3]}, args, []string{"guard"})...) }
	l, err := net.Listen("unix", m.socket())
	if err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
	go m.listen(l)
	if err := m.start(); err != nil {
		fmt.Println("unitd:", err)
	}
	go m.run()
	<-terms
	close(m.stopped)
	<-m.ended
}

func (m *unitManager) socket() string { return filepath.Join(m.dir, "orders") }

// listen takes orders until the listener is closed.
func (m *unitManager) listen(l net.Listener) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			answer := make(chan error, 1)
			select {
			case m.orders <- answer:
			case <-m.stopped:
				return
			}
			fmt.Fprintln(c, <-answer)
		}()
	}
}

// managerctl is the program of that name, which hooks call: it has the service
// restarted, and succeeds when that is ready.
//
//	managerctl SOCKET
func managerctl() {
	c, err := net.Dial("unix", os.Args[1])
	if err == nil {
		var answer []byte
		if answer, err = io.ReadAll(c); err == nil && string(answer) != "<nil>\n" {
			err = errors.New(string(bytes.TrimSpace(answer)))
		}
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "job failed:", err)
		os.Exit(1)
	}
}

func (m *unitManager) run() {
	defer close(m.ended)
	for {
		select {
		case <-m.stopped:
			m.end()
			return
		case answer := <-m.orders:
			m.end()
			answer <- m.start()
		case err := <-m.exit:
			m.gone(err)
		case <-m.again:
			m.start() // what it fails with, it says in its log
		}
	}
}

// gone notes that the service has ended by itself.
func (m *unitManager) gone(err error) {
	m.main, m.exit = nil, nil
	m.after()
	if err != nil {
		m.again = time.After(restartAfter)
	}
}

// after does what is to be done whenever the service has ended, or has not begun.
// A program that is not there is passed over, as with systemd's "-".
func (m *unitManager) after() {
	if m.post == nil {
		return
	}
	if err := m.post().Run(); err != nil && !errors.Is(err, os.ErrNotExist) {
		fmt.Println("ExecStopPost:", err)
	}
}

// end ends the service, and nothing else that it has started.
func (m *unitManager) end() {
	m.again = nil
	if m.main == nil {
		return
	}
	m.main.Process.Signal(syscall.SIGTERM)
	select {
	case <-m.exit:
	case <-time.After(patience):
		m.main.Process.Kill()
		<-m.exit
	}
	m.main, m.exit = nil, nil
	m.after()
}

// start returns nil when the service has said that it is ready.
func (m *unitManager) start() error {
	m.again = nil
	path := filepath.Join(m.dir, "notify")
	os.Remove(path)
	l, err := net.ListenPacket("unixgram", path)
	if err != nil {
		return err
	}
	cmd := m.service()
	cmd.Env = append(cmd.Env, "NOTIFY_SOCKET="+path)
	if err := cmd.Start(); err != nil {
		l.Close()
		m.gone(err)
		return err
	}
	exit, ready := make(chan error, 1), make(chan struct{})
	go func() { exit <- cmd.Wait(); l.Close() }()
	go awaitReady(l, ready)
	m.main, m.exit = cmd, exit
	select {
	case <-ready:
		return nil
	case err := <-exit:
		m.gone(errors.Join(err, errors.New("ended before it was ready")))
		return fmt.Errorf("ended before it was ready: %w", err)
	case <-time.After(startLimit):
		cmd.Process.Kill()
		m.gone(<-exit)
		return errors.New("not ready in time")
	}
}

// awaitReady closes ready when the service says so, and reads on: a service must
// not wait for its manager.
func awaitReady(l net.PacketConn, ready chan struct{}) {
	b := make([]byte, 8192)
	for said := false; ; {
		n, _, err := l.ReadFrom(b)
		if err != nil {
			return
		}
		if !said && bytes.Contains(b[:n], []byte("READY=1")) {
			said = true
			close(ready)
		}
	}
}
