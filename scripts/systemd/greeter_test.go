//go:build systemd

package systemd

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// What a greeter does, by the file `mode` of its root.
const (
	refused = "refused" // the check of its files fails
	crashes = "crashes" // it ends at its start
	late    = "late"    // it takes lateBy to get ready
	lies    = "lies"    // it does all but serve its root
)

const lateBy = 3 * time.Second

// inRoot returns the root from which this program runs as a greeter; "": it does not.
func inRoot() string {
	exe, _ := os.Executable()
	if dir := filepath.Dir(filepath.Dir(exe)); filepath.Base(filepath.Dir(dir)) == "roots" {
		return dir
	}
	return ""
}

// greeter is a small web service that runs from root. It listens on the socket
// that it was given, or else at the address in the file `addr`.
func greeter(root string) error {
	mode := strings.TrimSpace(read(root + "/mode"))
	if len(os.Args) > 1 && os.Args[1] == "-check" {
		if mode == refused {
			return fmt.Errorf("mode %s", mode)
		}
		return nil
	}
	switch mode {
	case crashes:
		return fmt.Errorf("mode %s", mode)
	case late:
		time.Sleep(lateBy)
	}
	l, err := listener(root)
	if err != nil {
		return err
	}
	said := root
	if mode == lies {
		said = "/nowhere"
	}
	var open sync.WaitGroup // connections
	server := &http.Server{
		ReadHeaderTimeout: 5 * time.Second, // one that says nothing holds up the end no longer
		ConnState: func(_ net.Conn, state http.ConnState) {
			switch state {
			case http.StateNew:
				open.Add(1)
			case http.StateClosed:
				open.Done()
			}
		},
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			time.Sleep(3 * time.Millisecond) // a switch finds requests half-way
			fmt.Fprintf(w, `{"root":%q}`, said)
		}),
	}
	term, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	go func() {
		<-term.Done()
		l.Close()
	}()
	daemon.SdNotify(false, daemon.SdNotifyReady)
	if err := server.Serve(l); !errors.Is(err, net.ErrClosed) {
		return err
	}
	// Not Shutdown: it closes connections on which a request is just being read.
	server.SetKeepAlivesEnabled(false)
	open.Wait()
	return nil
}

func listener(root string) (net.Listener, error) {
	if os.Getenv("LISTEN_FDS") == "1" {
		return net.FileListener(os.NewFile(3, "socket"))
	}
	return net.Listen("tcp", strings.TrimSpace(read(root+"/addr")))
}
