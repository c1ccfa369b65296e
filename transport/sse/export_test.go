package sse

import (
	"net"
)

// NewServerOn is NewServer with a listener that exists. The fast path is used only if Listen made
// it.
func NewServerOn(l net.Listener, cfg ServerConfig) (*Server, error) { return newServer(cfg, l) }

// OpenConns returns how many slots of MaxConns are used.
func (s *Server) OpenConns() int64 { return s.settings.limiter.used.Load() }

// IsShort reports whether fewer than a tenth of MaxConns are free.
func (s *Server) IsShort() bool { return s.settings.limiter.isShort() }

// Listener returns what net/http accepts from.
func (s *Server) Listener() net.Listener { return s.listener }

// Rechecks returns how many streams are to be checked once more.
func (h *Handler) Rechecks() int64 { return h.rechecks.pending.Load() }
