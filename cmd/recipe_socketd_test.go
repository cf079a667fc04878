package cmd_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"
)

// socketd is the program of that name. It stands in for systemd with a socket unit
// and its service: it listens, and the service has the socket as its third file.
// Each connection to run/orders is an order to restart the service, as managerctl
// gives it. A service that ends by itself stays so.
//
//	socketd ADDRESS COMMAND...
func socketd() {
	if err := holdSocket(os.Args[1], os.Args[2:]); err != nil {
		fmt.Fprintln(os.Stderr, "error:", err)
		os.Exit(1)
	}
}

func holdSocket(addr string, command []string) error {
	runtime.LockOSThread() // a service ends with the thread that has started it
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	socket, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	os.Remove("run/orders") // one who was killed has left it
	orders, err := net.Listen("unix", "run/orders")
	if err != nil {
		return err
	}
	start := func() (*exec.Cmd, chan error, error) {
		cmd := exec.Command(command[0], command[1:]...)
		cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
		cmd.ExtraFiles = []*os.File{socket}
		cmd.Env = append(os.Environ(), "LISTEN_FDS=1")
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		ended := make(chan error, 1)
		err := cmd.Start()
		if err == nil {
			err = os.WriteFile("run/main", []byte(strconv.Itoa(cmd.Process.Pid)), 0o600)
			go func() { ended <- cmd.Wait() }()
		}
		return cmd, ended, err
	}
	cmd, ended, err := start()
	if err == nil {
		err = os.WriteFile("run/pid", []byte(strconv.Itoa(os.Getpid())), 0o600)
	}
	for err == nil {
		var order net.Conn
		if order, err = orders.Accept(); err != nil {
			break
		}
		cmd.Process.Signal(syscall.SIGTERM) // no error, or it has ended
		select {
		case <-ended:
		case <-time.After(patience): // TimeoutStopSec
			cmd.Process.Kill()
			<-ended
		}
		cmd, ended, err = start()
		fmt.Fprintln(order, err)
		order.Close()
	}
	return err
}
