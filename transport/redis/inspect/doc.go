// Package inspect checks whether a Redis is fit for a hub, and what to change where it is not:
// rights, version, role, buffer limits, and whether a published message comes back. It is what
// usercast check runs; other programs can run it in their own health checks.
package inspect
