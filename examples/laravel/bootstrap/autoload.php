<?php
// A project made with Composer has vendor/autoload.php. Debian's php-laravel-framework has an autoloader of its own, without App\.
if (is_file(__DIR__.'/../vendor/autoload.php')) {
    require __DIR__.'/../vendor/autoload.php';
    return;
}
require_once 'Illuminate/autoload.php';
spl_autoload_register(function ($class) {
    $file = dirname(__DIR__).'/app/'.strtr(substr($class, 4), '\\', '/').'.php';
    if (str_starts_with($class, 'App\\') && is_file($file)) {
        require $file;
    }
});
