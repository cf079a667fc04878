package verify

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"

	"deploytools/verify/spec"
)

// listenUnix serves l's connections with handle.
func listenUnix(t *testing.T, handle func(net.Conn)) (path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go acceptAll(l, handle)
	return path
}

func TestLooksAtUnixSockets(t *testing.T) {
	cert := newCert(t, "x", ecKey(t))
	greets := listenUnix(t, func(c net.Conn) { io.WriteString(c, "220 ready\r\n") })
	shakes := listenUnix(t, func(c net.Conn) { tls.Server(c, config(cert)).Handshake() })
	answers := listenUnix(t, func(c net.Conn) {
		req, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n%s at %s", req.URL.Path, req.Host)
	})
	for _, row := range []struct {
		c      spec.Check
		kind   Kind
		target string
	}{
		{spec.Check{Type: spec.TCP, Unix: greets, Expect: "220 "}, "", "unix:" + greets},
		{spec.Check{Type: spec.TCP, Unix: greets, Expect: "221 "}, Expect, "unix:" + greets},
		{spec.Check{Type: spec.TCP, Unix: greets + "x"}, Dial, "unix:" + greets + "x"},
		{spec.Check{Type: spec.TLS, Unix: shakes, SNI: "www", Fingerprint: Fingerprint(cert.Leaf)}, "", "unix:" + shakes + " as www"},
		{spec.Check{Type: spec.TLS, Unix: shakes, Fingerprint: strings.Repeat("ab", 32)}, WrongCert, "unix:" + shakes},
		{spec.Check{Type: spec.HTTP, URL: "http://web.invalid/v", Unix: answers, Body: "/v at web.invalid"}, "", "http://web.invalid/v at unix:" + answers},
		{spec.Check{Type: spec.HTTP, URL: "http://web.invalid/v", Host: "other", Unix: answers, Body: "/v at other"}, "", "http://web.invalid/v as other at unix:" + answers},
	} {
		if f := lookAt(t, row.c, Vars{}); f.Kind != row.kind || f.Target != row.target {
			t.Errorf("%s: %+v, want kind %q of %s", row.c, f, row.kind, row.target)
		}
	}
}

func TestAPortIsSpokenTo(t *testing.T) {
	// echo says what it hears, line by line, after a greeting.
	echo := serve(t, func(c net.Conn) {
		io.WriteString(c, "hello\r\n")
		for r := bufio.NewReader(c); ; {
			line, err := r.ReadString('\n')
			if err != nil || line == "quit\r\n" {
				return
			}
			io.WriteString(c, "you said "+line)
		}
	})
	flooding, sent := flood(t, "", strings.Repeat("x", 1000))
	for _, row := range []struct {
		addr, send, expect, body string
		kind                     Kind
		detail                   string
	}{
		{echo, `a\r\nquit\r\n`, "", "you said a", "", ""},
		{echo, `a\r\nquit\r\n`, "hello", "you said a", "", ""},
		{echo, `a\r\nquit\r\n`, `hello\x0d\nyou`, "", "", ""},
		{echo, `{newid}\r\nquit\r\n`, "", "you said {newid}", Body, `says "hello\r\nyou said {newid}\r\n", want "you said n1" in it; it closed the connection`},
		{echo, `n1\r\nquit\r\n`, "", "you said {newid}", "", ""},
		{echo, `quit\r\n`, "hello", "you said", Body, "it closed the connection"},
		{echo, `quit\r\n`, "you said", "", Expect, `want "you said" first`},
		{flooding, "", "", "y", Body, `"xxx`},
	} {
		c := spec.Check{Type: spec.TCP, Addr: row.addr, Send: row.send, Expect: row.expect, Body: row.body}
		f := lookAt(t, c, Vars{NewID: "n1"})
		if f.Kind != row.kind || !strings.Contains(f.Detail, row.detail) || len(f.Detail) > 1000 {
			t.Errorf("%s: %+v, want kind %q with %s", c, f, row.kind, row.detail)
		}
	}
	<-sent
}

func TestMethodAndHeadersAreSent(t *testing.T) {
	asked := make(chan *http.Request, 1)
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked <- r
		w.WriteHeader(http.StatusNoContent)
	}))
	t.Cleanup(s.Close)
	url := s.URL
	c := spec.Check{Type: spec.HTTP, URL: url, Method: "HEAD", Headers: []string{"X-A: b: c", "X-A: d", "User-Agent: probe"}, Status: "200-204"}
	f := lookAt(t, c, Vars{})
	r := <-asked
	if !f.OK || f.Got != "204" || f.Want != "200-204" || r.Method != "HEAD" || strings.Join(r.Header["X-A"], ",") != "b: c,d" || r.UserAgent() != "probe" {
		t.Errorf("%+v; asked with %s %v", f, r.Method, r.Header)
	}
	c.Status = "200-203,205"
	if f := lookAt(t, c, Vars{}); f.Kind != HTTPStatus || !strings.Contains(f.Detail, "HEAD "+url+": status \"204 No Content\", want 200-203,205") {
		t.Errorf("%+v", f)
	}
	<-asked
}

func TestEndOfACertificateOfHTTPSIsTold(t *testing.T) {
	cert := newCert(t, "x", ecKey(t))
	addr := serve(t, func(c net.Conn) {
		s := tls.Server(c, config(cert))
		s.Read(make([]byte, 1000))
		io.WriteString(s, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	})
	f := lookAt(t, spec.Check{Type: spec.HTTP, URL: "https://" + addr + "/", Insecure: true}, Vars{})
	if !f.OK || !f.NotAfter.Equal(cert.Leaf.NotAfter) {
		t.Errorf("%+v, want NotAfter %v", f, cert.Leaf.NotAfter)
	}
}
