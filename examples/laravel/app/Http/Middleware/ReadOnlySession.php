<?php
namespace App\Http\Middleware;

use Closure;
use Illuminate\Events\NullDispatcher;
use Illuminate\Session\CookieSessionHandler;
use SessionHandlerInterface;

/** Runs a route with the visitor's session and stores nothing. It must run before the group "web". */
class ReadOnlySession
{
    public function handle($request, Closure $next)
    {
        $store = app('session')->driver();
        $stored = $store->getHandler();
        $guards = collect(config('auth.guards'))->where('driver', 'session')->keys()->map(fn ($name) => auth()->guard($name));
        $events = app('events');
        $setHandler = function ($handler) { $this->handler = $handler; };
        if (! $stored instanceof CookieSessionHandler) { // there, the hub ignores the new cookie
            $setHandler->call($store, $this->withoutWrites($stored));
        }
        $guards->each->setDispatcher(new NullDispatcher($events)); // no Login event for a remember-me cookie
        try {
            return $next($request);
        } finally {
            $setHandler->call($store, $stored);
            $guards->each->setDispatcher($events);
        }
    }

    private function withoutWrites(SessionHandlerInterface $stored): SessionHandlerInterface
    {
        return new class($stored) implements SessionHandlerInterface
        {
            public function __construct(private SessionHandlerInterface $stored) {}
            public function open($path, $name): bool { return true; }
            public function close(): bool { return true; }
            public function read($id): string { return (string) $this->stored->read($id); }
            public function write($id, $data): bool { return true; }
            public function destroy($id): bool { return true; }
            public function gc($lifetime): int { return 0; }
        };
    }
}
