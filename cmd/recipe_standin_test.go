package cmd_test

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// Servers that Debian has no package of. In their place is standIn, which does
// what their documents say: it reads certificates again when a file is moved into
// the directory that it watches, and keeps the old ones where it cannot.

var traefikRecipe = recipe{
	name:    "traefik",
	version: standInVersion,
	root:    files{"dynamic.yml": "tls:\n  certificates:\n    - certFile: @ROOT@/certs/site.pem\n      keyFile: @ROOT@/certs/site.key\n"},
	spoiled: map[string]files{
		validateFails: {"certs/site.key": "{otherkey}"},
		wrong: {"dynamic.yml": "tls:\n  certificates:\n    - certFile: @ROOT@/certs/other.pem\n      keyFile: @ROOT@/certs/other.key\n",
			"certs/other.pem": "{othercert}", "certs/other.key": "{otherkey}"},
	},
	refused: "does not belong to the certificate",
	vars:    []string{"WATCHED={dir}/run"},
	reload:  startStandIn("{dir}/run", "{dir}/run/traefik.yml"),
	without: map[string]string{edited: unseen},
}

var envoyRecipe = recipe{
	name:    "envoy",
	version: standInVersion,
	root:    files{"sds.yaml": "certificate_chain: { filename: {current}/certs/site.pem }\nprivate_key: { filename: {current}/certs/site.key }\n"},
	spoiled: map[string]files{
		validateFails: {"certs/site.key": "{otherkey}"},
		wrong: {"sds.yaml": "certificate_chain: { filename: {current}/certs/other.pem }\nprivate_key: { filename: {current}/certs/other.key }\n",
			"certs/other.pem": "{othercert}", "certs/other.key": "{otherkey}"},
	},
	refused: "does not belong to the certificate",
	reload:  startStandIn("{dir}/agent", "{current}/sds.yaml"),
	without: map[string]string{edited: unseen},
}

const (
	standInVersion = "echo 'untested, a stand-in was run'"
	unseen         = "does not apply: seen at the next switch"
)

func startStandIn(watched, settings string) string {
	return `alive && exit
rm -f run/pid
standin {addr} ` + watched + ` ` + settings + ` run/pid >>run/standin.log 2>&1 &
while kill -0 $! && ! [ -s run/pid ]; do sleep 0.1; done
`
}

// standIn is the program of that name. It serves what serveSizes does, with the
// certificate and key that SETTINGS name, as files that end in .pem and .key. It
// writes its process id to PIDFILE when it listens.
//
//	standin HOST:PORT WATCHED SETTINGS PIDFILE
func standIn() {
	if len(os.Args) != 5 {
		fmt.Fprintln(os.Stderr, "usage: standin HOST:PORT WATCHED SETTINGS PIDFILE")
		os.Exit(2)
	}
	addr, watched, settings, pidFile := os.Args[1], os.Args[2], os.Args[3], os.Args[4]
	var pair atomic.Pointer[tls.Certificate]
	read := func() {
		cert, err := readPair(settings)
		if err != nil {
			fmt.Fprintln(os.Stderr, "error:", err)
			return
		}
		pair.Store(&cert)
	}
	err := watchMoves(watched, read)
	read()
	if err == nil {
		config := &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return pair.Load(), nil }}
		l, listenErr := tls.Listen("tcp", addr, config)
		if err = listenErr; err == nil {
			err = os.WriteFile(pidFile, []byte(strconv.Itoa(os.Getpid())), 0o644)
		}
		if err == nil {
			err = http.Serve(l, http.HandlerFunc(serveSizes))
		}
	}
	fmt.Fprintln(os.Stderr, "error:", err)
	os.Exit(1)
}

var (
	certName = regexp.MustCompile(`/[^\s"]*\.pem`)
	keyName  = regexp.MustCompile(`/[^\s"]*\.key`)
)

// readPair reads the certificate and the key that the settings name.
func readPair(settings string) (tls.Certificate, error) {
	text, err := os.ReadFile(settings)
	if err != nil {
		return tls.Certificate{}, err
	}
	return tls.LoadX509KeyPair(string(certName.Find(text)), string(keyName.Find(text)))
}

// watchMoves calls fn whenever a file was moved to a name in the directory, but
// for hidden ones.
func watchMoves(dir string, fn func()) error {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err != nil {
		return err
	}
	if _, err := unix.InotifyAddWatch(fd, dir, unix.IN_MOVED_TO); err != nil {
		return errors.Join(fmt.Errorf("cannot watch %s: %w", dir, err), unix.Close(fd))
	}
	events := os.NewFile(uintptr(fd), filepath.Base(dir))
	go func() { // as long as the program runs
		for {
			var b [64 << 10]byte
			n, err := events.Read(b[:])
			if err != nil {
				return
			}
			for rest := b[:n]; len(rest) >= unix.SizeofInotifyEvent; {
				end := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(rest[12:]))
				name := bytes.TrimRight(rest[unix.SizeofInotifyEvent:end], "\x00")
				if !bytes.HasPrefix(name, []byte(".")) {
					fn()
				}
				rest = rest[end:]
			}
		}
	}()
	return nil
}
