<?php
namespace App\Providers;

use App\Http\Middleware\ReadOnlySession;
use Illuminate\Auth\Events\{CurrentDeviceLogout, Logout, OtherDeviceLogout, PasswordReset};
use Illuminate\Http\Request;
use Illuminate\Support\Facades\{Event, Redis, Route};
use Illuminate\Support\ServiceProvider;

class UsercastServiceProvider extends ServiceProvider
{
    /** Defines the Redis connection "usercast": the default connection without a prefix and with timeouts in seconds. */
    public function register()
    {
        $default = config('database.redis.default');
        config(['database.redis.usercast' => array_merge($default, [
            'timeout' => 0.5,            // to connect
            'read_timeout' => 0.5,       // phpredis
            'read_write_timeout' => 0.5, // predis
            'prefix' => '',              // predis, and phpredis in newer versions of Laravel
            'options' => array_merge($default['options'] ?? [], ['prefix' => '']), // phpredis in Laravel 8
        ])]);
    }

    public function boot()
    {
        Route::middleware([ReadOnlySession::class, 'web'])->get('/usercast/session', function (Request $request) {
            $user = $request->user();
            return $user ? response('')->header('X-User-ID', (string) $user->getAuthIdentifier()) : response('', 401);
        });

        Event::listen([Logout::class, CurrentDeviceLogout::class, OtherDeviceLogout::class, PasswordReset::class], function ($event) {
            if ($event->user) {
                $command = ['op' => 'disconnect', 'user' => (string) $event->user->getAuthIdentifier()];
                app()->terminating(fn () => self::publish('usercast:user-control', $command)); // the session still exists now
            }
        });
    }

    /** Publishes. If Redis is unavailable, it reports the exception to the log, and the request continues. */
    public static function publish(string $channel, $data): void
    {
        rescue(fn () => Redis::connection('usercast')->publish($channel, json_encode($data, JSON_INVALID_UTF8_SUBSTITUTE)));
    }
}
