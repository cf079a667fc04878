package verify

import (
	"bytes"
	"cmp"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"

	"deploytools/verify/spec"
)

// Limits of an answer.
const (
	maxBodyBytes   = 1 << 20 // of the body that is searched
	maxHeaderBytes = 1 << 18
)

// lookHTTP asks for c.URL once: no redirect is followed, no proxy asked, no
// connection kept. The body is read only where the check needs it, so that an
// endless one is no failure by itself.
func lookHTTP(ctx context.Context, c spec.Check, v Vars) Finding {
	u, err := url.Parse(c.URL)
	if err != nil {
		return Finding{Kind: Spec, Detail: err.Error()}
	}
	addr := net.JoinHostPort(u.Hostname(), cmp.Or(u.Port(), map[string]string{"http": "80", "https": "443"}[u.Scheme]))
	return eachAddress(ctx, c, addr, func(ctx context.Context, connect func() (net.Conn, error)) Finding {
		return ask(ctx, c, v, connect)
	})
}

// ask sends the request over the connection, and compares the answer.
func ask(ctx context.Context, c spec.Check, v Vars, connect func() (net.Conn, error)) Finding {
	req, err := newRequest(ctx, c)
	if err != nil {
		return Finding{Kind: Spec, Detail: err.Error()}
	}
	transport := newTransport(ctx, c, req.URL, connect)
	defer transport.CloseIdleConnections()
	client := http.Client{
		Transport:     transport,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	resp, err := client.Do(req)
	if err != nil {
		if u, ok := errors.AsType[*url.Error](err); ok {
			err = u.Err
		}
		return lost(ctx, HTTP, fmt.Errorf("%s %s: %w", req.Method, c.URL, err))
	}
	defer resp.Body.Close()
	f := compareAnswer(ctx, c, v, resp)
	if resp.TLS != nil {
		f.NotAfter = resp.TLS.PeerCertificates[0].NotAfter
	}
	return f
}

func newRequest(ctx context.Context, c spec.Check) (*http.Request, error) {
	req, err := http.NewRequestWithContext(ctx, cmp.Or(c.Method, http.MethodGet), c.URL, nil)
	if err != nil {
		return nil, err
	}
	req.Host = c.Host // empty: the host of the URL
	for _, h := range c.Headers {
		name, value, _ := strings.Cut(h, ": ")
		req.Header.Add(name, value)
	}
	return req, nil
}

// newTransport makes one connection, which ends with ctx, the look's own: those
// of http.Transport may outlive the request. Where c.Host is set, the other side
// is asked for it in SNI and must have a certificate for it.
func newTransport(ctx context.Context, c spec.Check, u *url.URL, connect func() (net.Conn, error)) *http.Transport {
	name := u.Hostname()
	if c.Host != "" {
		name = (&url.URL{Host: c.Host}).Hostname()
	}
	return &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return connect() },
		DialTLSContext: func(context.Context, string, string) (net.Conn, error) {
			conn, err := connect()
			if err != nil {
				return nil, err
			}
			return handshake(ctx, conn, &tls.Config{ServerName: name, InsecureSkipVerify: c.Insecure})
		},
		DisableKeepAlives:      true,
		DisableCompression:     true,
		MaxResponseHeaderBytes: maxHeaderBytes,
	}
}

func compareAnswer(ctx context.Context, c spec.Check, v Vars, resp *http.Response) Finding {
	if !c.Status.Has(resp.StatusCode) {
		return wrongStatus(c, resp)
	}
	if c.Body == "" && c.JSON == "" {
		return Finding{Want: string(c.Status), Got: strconv.Itoa(resp.StatusCode)}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBodyBytes+1))
	if err != nil {
		return lost(ctx, HTTP, fmt.Errorf("GET %s: body: %w", c.URL, err))
	}
	return compareBody(c, v, body)
}

func wrongStatus(c spec.Check, resp *http.Response) Finding {
	f := Finding{Kind: HTTPStatus, Want: string(c.Status), Got: strconv.Itoa(resp.StatusCode)}
	f.Detail = fmt.Sprintf("%s %s: status %s, want %s", resp.Request.Method, c.URL, excerpt([]byte(resp.Status)), f.Want)
	if to := resp.Header.Get("Location"); to != "" {
		f.Detail += "; redirects to " + excerpt([]byte(to)) + ", which is not followed"
	}
	return f
}

// compareBody looks for the text and the field; body may be one byte longer
// than is searched.
func compareBody(c spec.Check, v Vars, body []byte) Finding {
	long := len(body) > maxBodyBytes
	body = body[:min(len(body), maxBodyBytes)]
	if want := v.expand(c.Body); !bytes.Contains(body, []byte(want)) {
		f := Finding{Kind: Body, Want: excerpt([]byte(want)), Got: excerpt(body)}
		f.Detail = fmt.Sprintf("GET %s: the body %s does not contain %s", c.URL, f.Got, f.Want)
		return f
	}
	if c.JSON == "" {
		return Finding{}
	}
	f := Finding{Want: v.expand(c.Equals)}
	got, err := field(body, c.JSON)
	switch {
	case long:
		f.Kind, f.Detail = JSON, fmt.Sprintf("GET %s: the body is longer than %d bytes", c.URL, maxBodyBytes)
	case err != nil:
		f.Kind, f.Detail = JSON, fmt.Sprintf("GET %s: field %q: %v; the body is %s", c.URL, c.JSON, err, excerpt(body))
	case got != f.Want:
		f.Kind, f.Detail = JSON, fmt.Sprintf("GET %s: field %q is %q, want %q", c.URL, c.JSON, got, f.Want)
	}
	f.Got = got
	return f
}
