package web

import (
	"compress/gzip"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
)

// body reads a request's body and refuses what connect-go would refuse without a reason, or
// only after having read it all: messages over the bound, and frames that are broken. Errors
// come out as refuse makes them.
type body struct {
	io.ReadCloser
	most   int64             // bytes of a message
	refuse func(error) error // never nil

	framed     bool // gRPC, gRPC-Web and Connect streams: 5 bytes of flags and length, then the message
	single     bool // exactly one message
	compressed bool // an encoding was named in the headers

	head   [5]byte
	have   int   // bytes of head
	left   int64 // bytes of the message that are to come
	frames int
	read   int64 // without frames: bytes so far
	failed error
}

// Read implements io.Reader.
func (b *body) Read(p []byte) (int, error) {
	if b.failed != nil {
		return 0, b.failed
	}
	n, err := b.ReadCloser.Read(p)
	bad := b.check(p[:n])
	switch {
	case bad != nil:
	case err == nil:
		return n, nil
	case errors.Is(err, io.EOF):
		if bad = b.end(); bad == nil {
			return n, io.EOF
		}
	case errors.Is(err, io.ErrUnexpectedEOF):
		bad = malformed("the body ended before it was complete")
	default:
		bad = malformed("the body could not be read in time, or its sender went away")
	}
	b.failed = b.refuse(bad)
	return 0, b.failed
}

// check looks at bytes that were read.
func (b *body) check(p []byte) error {
	b.read += int64(len(p))
	if !b.framed {
		if b.read > b.most {
			return errOversized
		}
		return nil
	}
	for len(p) > 0 {
		if b.have < len(b.head) {
			n := copy(b.head[b.have:], p)
			b.have, p = b.have+n, p[n:]
			if b.have < len(b.head) {
				return nil
			}
			if err := b.frame(); err != nil {
				return err
			}
		}
		n := min(int64(len(p)), b.left)
		b.left, p = b.left-n, p[n:]
		if b.left == 0 {
			b.have = 0
		}
	}
	return nil
}

// frame checks the head of a message.
func (b *body) frame() error {
	b.frames++
	b.left = int64(binary.BigEndian.Uint32(b.head[1:]))
	switch flags := b.head[0]; {
	case flags > 1:
		return malformed(fmt.Sprintf("message %d has the flags %#02x; 0 and 1 (compressed) are known", b.frames, flags))
	case flags == 1 && !b.compressed:
		return malformed(fmt.Sprintf("message %d is marked as compressed, and no header says how", b.frames))
	case b.single && b.frames > 1:
		return malformed("the method takes one message, and there are more")
	case b.left > b.most:
		return errOversized
	}
	return nil
}

// end checks that nothing is missing.
func (b *body) end() error {
	switch {
	case !b.framed:
		return nil
	case b.have > 0 && b.have < len(b.head):
		return malformed(fmt.Sprintf("the body ended within the head of message %d", b.frames+1))
	case b.left > 0:
		return malformed(fmt.Sprintf("the body ended %d bytes before the end of message %d", b.left, b.frames))
	case b.single && b.frames == 0:
		return malformed("the body has no message; one without fields is five zero bytes")
	}
	return nil
}

// errOversized is replaced by an error that names method and bound.
var errOversized = errors.New("too large")

// inflater decompresses gzip up to a bound, whatever the input claims: a few bytes can stand
// for gigabytes. Errors come out as refuse makes them. It is a connect.Decompressor.
type inflater struct {
	most   int64
	refuse func(error) error
	src    io.Reader
	gz     *gzip.Reader
	begun  bool
	read   int64
}

// Reset begins anew with r. It reads nothing yet, so it does not fail.
func (f *inflater) Reset(r io.Reader) error {
	f.src, f.begun, f.read = r, false, 0
	return nil
}

// Read implements io.Reader.
func (f *inflater) Read(p []byte) (int, error) {
	if !f.begun {
		if err := f.begin(); err != nil {
			return 0, f.fail(err)
		}
	}
	n, err := f.gz.Read(p)
	if f.read += int64(n); f.read > f.most {
		return 0, f.refuse(errOversized)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return 0, f.fail(err)
	}
	return n, err
}

func (f *inflater) begin() (err error) {
	f.begun = true
	if f.gz == nil {
		f.gz, err = gzip.NewReader(f.src)
		return err
	}
	return f.gz.Reset(f.src)
}

// fail passes on what the body's reader has refused already.
func (f *inflater) fail(err error) error {
	if refused(err) {
		return err
	}
	return f.refuse(malformed("the body is not what its encoding says: " + err.Error()))
}

// Close implements io.Closer.
func (f *inflater) Close() error { return nil }
