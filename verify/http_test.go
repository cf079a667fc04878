package verify

import (
	"crypto/tls"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"deploytools/verify/spec"
)

// site answers a few paths, each in its own way.
func site() http.Handler {
	mux := http.NewServeMux()
	text := func(path, body string) {
		mux.HandleFunc(path, func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, body) })
	}
	text("/text", "all is \x1bwell")
	text("/version", `{"id":"n1","a/b":{"m~n":[10,{"x":1.50}]},"on":true,"none":null}`)
	text("/wide", `{"id":"`+strings.Repeat("x", maxBodyBytes/2)+`"}`)
	text("/large", strings.Repeat("x", maxBodyBytes)+"end")
	mux.HandleFunc("/host", func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Host) })
	mux.HandleFunc("/moved", func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, "/text", http.StatusFound) })
	mux.HandleFunc("/down", func(w http.ResponseWriter, r *http.Request) { w.WriteHeader(http.StatusServiceUnavailable) })
	mux.HandleFunc("/endless", func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
	})
	return mux
}

// quiet starts s, which keeps to itself that clients turn away from it.
func quiet(t *testing.T, start func(*httptest.Server), config *tls.Config) (url string) {
	t.Helper()
	s := httptest.NewUnstartedServer(site())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.TLS = config
	start(s)
	t.Cleanup(s.Close)
	return s.URL
}

func TestHTTPAnswers(t *testing.T) {
	url := quiet(t, (*httptest.Server).Start, nil)
	v := Vars{NewID: "n1", OldID: "o1", Name: "conf", Revision: "10", NewRoot: "/r"}
	for name, row := range map[string]struct {
		path   string
		c      spec.Check
		kind   Kind
		detail string
	}{
		"status":            {"/text", spec.Check{}, "", ""},
		"other status":      {"/down", spec.Check{}, HTTPStatus, "503 Service Unavailable"},
		"wanted 503":        {"/down", spec.Check{Status: "503"}, "", ""},
		"redirect":          {"/moved", spec.Check{}, HTTPStatus, `redirects to "/text"`},
		"wanted redirect":   {"/moved", spec.Check{Status: "302"}, "", ""},
		"body":              {"/text", spec.Check{Body: "all is"}, "", ""},
		"other body":        {"/text", spec.Check{Body: "not well"}, Body, `"all is \x1bwell" does not contain "not well"`},
		"body placeholder":  {"/version", spec.Check{Body: `"id":"{newid}"`}, "", ""},
		"other placeholder": {"/version", spec.Check{Body: `"id":"{oldid}"`}, Body, `\"o1\"`},
		"beyond the limit":  {"/large", spec.Check{Body: "end"}, Body, ""},
		"endless":           {"/endless", spec.Check{}, "", ""},
		"host":              {"/host", spec.Check{Host: "www.example.org:81", Body: "www.example.org:81"}, "", ""},
		"json":              {"/version", spec.Check{JSON: "/id", Equals: "{newid}"}, "", ""},
		"json old":          {"/version", spec.Check{JSON: "/id", Equals: "{oldid}"}, JSON, `field "/id" is "n1", want "o1"`},
		"json number":       {"/version", spec.Check{JSON: "/a~1b/m~0n/0", Equals: "{revision}"}, "", ""},
		"json as written":   {"/version", spec.Check{JSON: "/a~1b/m~0n/1/x", Equals: "1.50"}, "", ""},
		"json bool":         {"/version", spec.Check{JSON: "/on", Equals: "true"}, "", ""},
		"json null":         {"/version", spec.Check{JSON: "/none", Equals: "null"}, "", ""},
		"json object":       {"/version", spec.Check{JSON: "/a~1b", Equals: "x"}, JSON, "object or an array"},
		"json missing":      {"/version", spec.Check{JSON: "/ID", Equals: "x"}, JSON, `there is no "ID"`},
		"json past the end": {"/version", spec.Check{JSON: "/a~1b/m~0n/2", Equals: "x"}, JSON, `there is no "2"`},
		"json index 00":     {"/version", spec.Check{JSON: "/a~1b/m~0n/00", Equals: "10"}, JSON, `there is no "00"`},
		"json in a scalar":  {"/version", spec.Check{JSON: "/id/x", Equals: "x"}, JSON, `there is no "x"`},
		"no json":           {"/text", spec.Check{JSON: "/id", Equals: "x"}, JSON, "not a JSON document"},
		"json wide":         {"/wide", spec.Check{JSON: "/id", Equals: "x"}, JSON, `"xxxx`},
		"json too long":     {"/large", spec.Check{JSON: "/id", Equals: "x"}, JSON, "longer than"},
	} {
		c := row.c
		c.Type, c.URL = spec.HTTP, url+row.path
		if f := lookAt(t, c, v); f.Kind != row.kind || !strings.Contains(f.Detail, row.detail) {
			t.Errorf("%s: %+v, want kind %q with %q", name, f, row.kind, row.detail)
		} else if n := len(f.Detail) + len(f.Got); n > 3*maxFindingBytes {
			t.Errorf("%s: the finding has %d bytes", name, n)
		}
	}
}

func TestHTTPSChecksTheCertificateForTheHost(t *testing.T) {
	// httptest's own certificate is for example.com, *.example.com and 127.0.0.1.
	known := quiet(t, (*httptest.Server).StartTLS, nil)
	unknown := quiet(t, (*httptest.Server).StartTLS,
		&tls.Config{Certificates: []tls.Certificate{newCert(t, "unknown", ecKey(t))}})
	plain := quiet(t, (*httptest.Server).Start, nil)
	for name, row := range map[string]struct {
		url      string
		host     string
		insecure bool
		kind     Kind
	}{
		"address":           {known, "", false, ""},
		"host":              {known, "www.example.com:443", false, ""},
		"other host":        {known, "www.example.org", false, Hostname},
		"other, insecure":   {known, "www.example.org", true, ""},
		"unknown root":      {unknown, "", false, Chain},
		"unknown, insecure": {unknown, "", true, ""},
		"plain http server": {strings.Replace(plain, "http:", "https:", 1), "", true, Handshake},
	} {
		c := spec.Check{Type: spec.HTTP, URL: row.url + "/text", Host: row.host, Insecure: row.insecure}
		if f := lookAt(t, c, Vars{}); f.Kind != row.kind {
			t.Errorf("%s: %+v, want kind %q", name, f, row.kind)
		}
	}
}

func TestNoHTTPIsSaid(t *testing.T) {
	addr := serve(t, func(c net.Conn) { c.Write([]byte("220 mail.example.org ESMTP\r\n\r\n")) })
	if f := lookAt(t, spec.Check{Type: spec.HTTP, URL: "http://" + addr + "/"}, Vars{}); f.Kind != HTTP {
		t.Errorf("%+v", f)
	}
	addr = serve(t, func(c net.Conn) {
		c.Read(make([]byte, 1000))
		c.Write([]byte("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"))
	})
	if f := lookAt(t, spec.Check{Type: spec.HTTP, URL: "http://" + addr + "/", Body: "half"}, Vars{}); f.Kind != HTTP {
		t.Errorf("cut off: %+v", f)
	}
}

// TestMain sets a proxy where nothing listens.
func TestHTTPIgnoresTheProxyOfTheEnvironment(t *testing.T) {
	c := spec.Check{Type: spec.HTTP, URL: "http://nowhere.invalid/", Timeout: 2 * time.Second}
	if f := lookAt(t, c, Vars{}); !strings.Contains(f.Detail, "lookup nowhere.invalid") {
		t.Errorf("%+v, want the host itself to be asked", f)
	}
}

func TestTCPGreeting(t *testing.T) {
	greet := func(parts ...string) string {
		return serve(t, func(c net.Conn) {
			for _, p := range parts {
				c.Write([]byte(p))
			}
		})
	}
	for name, row := range map[string]struct {
		addr, expect string
		kind         Kind
		detail       string
	}{
		"connect":       {greet("anything"), "", "", ""},
		"whole":         {greet("220 ready\r\n"), "220 ready\r\n", "", ""},
		"prefix":        {greet("220 ready\r\n"), "220 ", "", ""},
		"in two pieces": {greet("22", "0 ready"), "220 ", "", ""},
		"another":       {greet("554 no\x1b service"), "220 ", Expect, `says "554 no\x1b service", want "220 " first`},
		"nothing":       {greet(), "220 ", Expect, "closed the connection"},
		"too little":    {greet("22"), "220 ", Expect, `says "22"`},
	} {
		c := spec.Check{Type: spec.TCP, Addr: row.addr, Expect: row.expect}
		if f := lookAt(t, c, Vars{}); f.Kind != row.kind || !strings.Contains(f.Detail, row.detail) {
			t.Errorf("%s: %+v, want kind %q with %s", name, f, row.kind, row.detail)
		}
	}
}
