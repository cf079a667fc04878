package cmd_test

import (
	"net"
	"os"

	"github.com/rogpeppe/go-internal/testscript"
)

// managerCommand is
//
//	manager
//
// and what programs tell a service manager is from then on a line in manager.log.
func managerCommand(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 0 {
		ts.Fatalf("usage: manager")
	}
	s := siteOf(ts)
	// Below the site the name would be too long for a socket.
	dir, err := os.MkdirTemp("", "manager-")
	ts.Check(err)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: dir + "/notify", Net: "unixgram"})
	ts.Check(err)
	out, err := os.OpenFile(s.file("manager.log"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	ts.Check(err)
	heard := make(chan struct{})
	go func() { // ends with the socket
		defer close(heard)
		buf := make([]byte, 64<<10)
		for {
			n, err := c.Read(buf)
			if err != nil {
				return
			}
			out.Write(append(buf[:n], '\n'))
		}
	}()
	ts.Defer(func() {
		c.Close()
		<-heard
		out.Close()
		os.RemoveAll(dir)
	})
	ts.Setenv("NOTIFY_SOCKET", dir+"/notify")
}
